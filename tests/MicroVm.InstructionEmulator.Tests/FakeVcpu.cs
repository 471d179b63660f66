using MicroVm.Kvm.Native;
using Xunit;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>A stopped vCPU in memory, on which handlers act as they do on a KVM one.</summary>
internal sealed class FakeVcpu : IVcpuPort
{
    private kvm_regs _regs;
    private kvm_sregs _sregs;

    /// <summary>Makes one with an XSAVE area for all components of <paramref name="layout"/>, or of <paramref name="xsaveSize"/> bytes.</summary>
    public FakeVcpu(TestGuest guest, XstateLayout? layout = null, int xsaveSize = 0)
    {
        Guest = guest;
        TestGuest.SetLongMode(ref _sregs);
        layout ??= XstateLayout.Host;
        Xsave = new byte[xsaveSize != 0 ? xsaveSize : Math.Max(4096, layout.StandardLength(layout.UserComponents))];
        Assist = new Emulator(this, guest.Memory, layout);
        Xcr0 = layout.UserComponents;
    }

    public TestGuest Guest { get; }

    public Emulator Assist { get; }

    public ref kvm_regs Regs => ref _regs;

    public ref kvm_sregs Sregs => ref _sregs;

    public ulong Xcr0 { get; set; }

    public int XsaveSize => Xsave.Length;

    public byte[] Xsave { get; }

    public byte? Vector { get; private set; }

    public uint? ErrorCode { get; private set; }

    public byte? SoftwareInterrupt { get; private set; }

    public ulong Dr6 { get; private set; }

    public int TlbFlushes { get; private set; }

    public bool SregsChanged { get; private set; }

    public Dictionary<uint, ulong> Msrs { get; } = [];

    public string Failure { get; private set; } = "";

    /// <summary>Puts code at RIP and completes its first instruction.</summary>
    public AssistResult Complete(ReadOnlySpan<byte> code, ulong at = TestGuest.CodeAddress)
    {
        Assert.True(Guest.Memory.TryWrite(at, code));
        _regs.rip = at;
        return CompleteAtRip();
    }

    public AssistResult CompleteAtRip()
    {
        Vector = null;
        ErrorCode = null;
        SoftwareInterrupt = null;
        AssistResult result = Assist.CompleteFromMemory(out string? failure);
        Failure = failure ?? "";
        return result;
    }

    public void Begin() => SregsChanged = false;

    public void MarkSregsChanged() => SregsChanged = true;

    public void Commit()
    {
    }

    public void GetXsave(Span<byte> area) => Xsave.CopyTo(area);

    public bool TrySetXsave(ReadOnlySpan<byte> area)
    {
        area.CopyTo(Xsave);
        return true;
    }

    public bool TrySetXcr0(ulong value)
    {
        Xcr0 = value;
        return true;
    }

    public bool TryGetMsr(uint index, out ulong value) => Msrs.TryGetValue(index, out value);

    public void InjectException(byte vector, uint? errorCode)
    {
        Vector = vector;
        ErrorCode = errorCode;
    }

    public void InjectSoftwareInterrupt(byte vector) => SoftwareInterrupt = vector;

    public void SetDr6(ulong bits) => Dr6 |= bits;

    public void FlushTlb() => TlbFlushes++;
}
