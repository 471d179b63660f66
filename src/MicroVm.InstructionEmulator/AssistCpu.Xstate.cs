using System.Runtime.InteropServices;

namespace MicroVm.InstructionEmulator;

/// <content>Extended state: the vCPU's XSAVE area in the standard format.</content>
internal sealed unsafe partial class AssistCpu
{
    internal const ulong X87 = 1;
    internal const ulong Sse = 2;
    internal const ulong Avx = 4;
    internal const int FswOffset = 2;
    internal const int MxcsrOffset = 24;
    internal const int MxcsrMaskOffset = 28;
    internal const int StOffset = 32;
    internal const int XmmOffset = 160;
    internal const int XmmLength = 256;
    internal const uint MxcsrDefault = 0x1F80;
    internal const ushort FcwDefault = 0x37F;
    private byte* _xstate;
    private bool _xstateLoaded;

    ~AssistCpu() => NativeMemory.AlignedFree(_xstate);

    /// <summary>The components that KVM holds for the vCPU: XCR0 may enable these and no others.</summary>
    public ulong UserComponents { get; private set; }

    /// <summary>The vCPU's extended state; valid after <see cref="LoadXstate"/>.</summary>
    public Span<byte> Xstate => new(_xstate, Port.XsaveSize);

    /// <summary>XSTATE_BV of <see cref="Xstate"/>: the components that are not in their initial state.</summary>
    public ref ulong XstateBv => ref *(ulong*)(_xstate + XstateLayout.HeaderOffset);

    /// <summary>MXCSR of <see cref="Xstate"/>.</summary>
    public ref uint Mxcsr => ref *(uint*)(_xstate + MxcsrOffset);

    /// <summary>Fetches the extended state, once for each instruction.</summary>
    public void LoadXstate()
    {
        if (!_xstateLoaded)
        {
            Port.GetXsave(Xstate);
            _xstateLoaded = true;
            Initialize(UserComponents & ~XstateBv);
        }
    }

    /// <summary>Begins a state that is written as a whole, without fetching the old one.</summary>
    public void ClearXstate()
    {
        Xstate.Clear();
        Mxcsr = MxcsrDefault;
        *(ushort*)_xstate = FcwDefault;
        _xstateLoaded = true;
    }

    /// <summary>Writes the extended state back.</summary>
    public Outcome StoreXstate()
    {
        // KVM takes MXCSR only with a component that uses it, so SSE is always marked; its registers' values are there.
        XstateBv |= Sse;
        return Port.TrySetXsave(Xstate) ? Outcome.Done : Unsupported("KVM refuses the extended state");
    }

    /// <summary>Gives components their initial values, which the area need not hold where XSTATE_BV is clear. MXCSR stays.</summary>
    private void Initialize(ulong components)
    {
        if ((components & X87) != 0)
        {
            Xstate[..MxcsrOffset].Clear();
            Xstate[StOffset..XmmOffset].Clear();
            *(ushort*)_xstate = FcwDefault;
        }

        if ((components & Sse) != 0)
        {
            Xstate.Slice(XmmOffset, XmmLength).Clear();
        }

        for (ulong rest = components & ~3ul; rest != 0; rest &= rest - 1)
        {
            int i = System.Numerics.BitOperations.TrailingZeroCount(rest);
            Xstate.Slice(Layout.StandardOffset(i), Layout.Size(i)).Clear();
        }
    }

    private void AllocateXstate()
    {
        _xstate = (byte*)NativeMemory.AlignedAlloc((nuint)Port.XsaveSize, 64);
        Xstate.Clear();
        UserComponents = Layout.UserComponentsWithin(Port.XsaveSize);
    }
}
