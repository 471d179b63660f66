using MicroVm.Kvm.Native;

namespace MicroVm.InstructionEmulator;

/// <summary>The state of a vCPU that has stopped, as the instruction handlers see it.</summary>
internal interface IVcpuPort
{
    /// <summary>General registers; changes are taken over by <see cref="Commit"/>.</summary>
    ref kvm_regs Regs { get; }

    /// <summary>Segments and control registers; changes are taken over by <see cref="Commit"/> after <see cref="MarkSregsChanged"/>.</summary>
    ref kvm_sregs Sregs { get; }

    /// <summary>XCR0.</summary>
    ulong Xcr0 { get; }

    /// <summary>Bytes of an XSAVE area.</summary>
    int XsaveSize { get; }

    /// <summary>Takes the vCPU's registers for this exit.</summary>
    void Begin();

    /// <summary>Has <see cref="Commit"/> write <see cref="Sregs"/> back.</summary>
    void MarkSregsChanged();

    /// <summary>Writes the registers back.</summary>
    void Commit();

    /// <summary>Reads the XSAVE area, standard format.</summary>
    void GetXsave(Span<byte> area);

    /// <summary>Writes the XSAVE area, standard format; false when the vCPU refuses it.</summary>
    bool TrySetXsave(ReadOnlySpan<byte> area);

    /// <summary>Sets XCR0; false when the vCPU refuses the value.</summary>
    bool TrySetXcr0(ulong value);

    /// <summary>Reads an MSR; false when there is none.</summary>
    bool TryGetMsr(uint index, out ulong value);

    /// <summary>Has an exception delivered at the next entry.</summary>
    void InjectException(byte vector, uint? errorCode);

    /// <summary>Has an <c>int n</c> delivered at the next entry.</summary>
    void InjectSoftwareInterrupt(byte vector);

    /// <summary>Sets bits in DR6.</summary>
    void SetDr6(ulong bits);

    /// <summary>Forgets all cached translations of the guest.</summary>
    void FlushTlb();
}
