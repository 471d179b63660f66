using System.Numerics;
using System.Runtime.InteropServices;

namespace MicroVm.InstructionEmulator;

/// <summary>The vCPU's extended state while an instruction is completed: an XSAVE area in the standard format. Used by the vCPU's thread.</summary>
internal sealed class ExtendedState
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
    private readonly IVcpuPort _port;
    private readonly XstateLayout _layout;
    private readonly byte[] _area;
    private bool _loaded;

    public ExtendedState(IVcpuPort port, XstateLayout layout)
    {
        _port = port;
        _layout = layout;
        _area = new byte[port.XsaveSize];
        UserComponents = layout.UserComponentsWithin(port.XsaveSize);
    }

    /// <summary>The components that KVM holds for the vCPU: XCR0 may enable these and no others.</summary>
    public ulong UserComponents { get; }

    /// <summary>The area; valid after <see cref="Load"/> or <see cref="Clear"/>.</summary>
    public Span<byte> Bytes => _area;

    /// <summary>XSTATE_BV: the components that are not in their initial state.</summary>
    public ref ulong XstateBv => ref MemoryMarshal.AsRef<ulong>(Bytes.Slice(XstateLayout.HeaderOffset, sizeof(ulong)));

    /// <summary>MXCSR.</summary>
    public ref uint Mxcsr => ref MemoryMarshal.AsRef<uint>(Bytes.Slice(MxcsrOffset, sizeof(uint)));

    /// <summary>A new instruction begins: what was fetched before is out of date.</summary>
    public void Forget() => _loaded = false;

    /// <summary>Fetches the state, once for each instruction.</summary>
    public void Load()
    {
        if (!_loaded)
        {
            _port.GetXsave(_area);
            _loaded = true;
            Initialize(UserComponents & ~XstateBv);
        }
    }

    /// <summary>Begins a state that is written as a whole, without fetching the old one.</summary>
    public void Clear()
    {
        Bytes.Clear();
        Mxcsr = MxcsrDefault;
        MemoryMarshal.Write(Bytes, FcwDefault);
        _loaded = true;
    }

    /// <summary>Writes the state back.</summary>
    /// <returns>False when KVM refuses it.</returns>
    public bool TryStore()
    {
        // KVM takes MXCSR only with a component that uses it, so SSE is always marked; its registers' values are there.
        XstateBv |= Sse;
        return _port.TrySetXsave(_area);
    }

    /// <summary>Gives components their initial values, which the area need not hold where XSTATE_BV is clear. MXCSR stays.</summary>
    private void Initialize(ulong components)
    {
        if ((components & X87) != 0)
        {
            Bytes[..MxcsrOffset].Clear();
            Bytes[StOffset..XmmOffset].Clear();
            MemoryMarshal.Write(Bytes, FcwDefault);
        }

        if ((components & Sse) != 0)
        {
            Bytes.Slice(XmmOffset, XmmLength).Clear();
        }

        for (ulong rest = components & ~3ul; rest != 0; rest &= rest - 1)
        {
            int i = BitOperations.TrailingZeroCount(rest);
            Bytes.Slice(_layout.StandardOffset(i), _layout.Size(i)).Clear();
        }
    }
}
