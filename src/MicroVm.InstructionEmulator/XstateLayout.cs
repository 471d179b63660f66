using System.Runtime.Intrinsics.X86;

namespace MicroVm.InstructionEmulator;

/// <summary>
/// The XSAVE areas' layout as CPUID leaf 0xD of this host gives it; the guest sees the same leaf. A component that would end
/// beyond <see cref="MaxAreaLength"/> is left out.
/// </summary>
internal sealed class XstateLayout
{
    /// <summary>Legacy region and header: where the extended region starts, in bytes.</summary>
    public const int ExtendedOffset = 576;

    /// <summary>Where the XSAVE header starts.</summary>
    public const int HeaderOffset = 512;

    /// <summary>State components beyond which nothing is defined.</summary>
    public const int MaxComponents = 63;

    /// <summary>The longest area in bytes, in both formats. Processors with AMX have areas of 11,008 bytes.</summary>
    public const int MaxAreaLength = GuestOperand.MaxLength;

    private const int CpuidLeaf = 0xD;
    private static XstateLayout? s_host;
    private readonly int[] _size = new int[MaxComponents];
    private readonly int[] _offset = new int[MaxComponents];
    private ulong _aligned;

    /// <summary>Takes the layout from <paramref name="cpuid"/>, which answers CPUID for a leaf and a sub-leaf.</summary>
    internal XstateLayout(Func<int, int, (int Eax, int Ebx, int Ecx, int Edx)> cpuid)
    {
        if (cpuid(0, 0).Eax < CpuidLeaf)
        {
            return;
        }

        (int eax, _, _, int edx) = cpuid(CpuidLeaf, 0);
        UserComponents = ((ulong)(uint)edx << 32) | (uint)eax;
        (eax, _, int ecx, edx) = cpuid(CpuidLeaf, 1);
        SupervisorComponents = ((ulong)(uint)edx << 32) | (uint)ecx;
        HasXsaveopt = (eax & 1) != 0;
        HasXsavec = (eax & 2) != 0;
        HasXgetbv1 = (eax & 4) != 0;
        HasXsaves = (eax & 8) != 0;
        for (int i = 2; i < MaxComponents; i++)
        {
            if (((UserComponents | SupervisorComponents) >> i & 1) != 0)
            {
                (int size, int offset, int flags, _) = cpuid(CpuidLeaf, i);
                Add(i, size, offset, aligned: (flags & 2) != 0);
            }
        }

        // MXCSR_MASK: bit 17 is AMD's misaligned-SSE mode.
        bool misaligned = (cpuid(unchecked((int)0x8000_0001), 0).Ecx & (1 << 7)) != 0;
        MxcsrMask = misaligned ? 0x2FFFFu : 0xFFFFu;
    }

    /// <summary>The host's layout; read once.</summary>
    public static XstateLayout Host => s_host ??= new XstateLayout(static (leaf, subleaf) => X86Base.CpuId(leaf, subleaf));

    /// <summary>Components that XCR0 may enable.</summary>
    public ulong UserComponents { get; private set; }

    /// <summary>Components that IA32_XSS may enable.</summary>
    public ulong SupervisorComponents { get; private set; }

    /// <summary>XSAVEOPT is there.</summary>
    public bool HasXsaveopt { get; }

    /// <summary>XSAVEC and the compacted form of XRSTOR are there.</summary>
    public bool HasXsavec { get; }

    /// <summary>XGETBV with ECX = 1 is there.</summary>
    public bool HasXgetbv1 { get; }

    /// <summary>XSAVES, XRSTORS and IA32_XSS are there.</summary>
    public bool HasXsaves { get; }

    /// <summary>Bits that MXCSR may hold.</summary>
    public uint MxcsrMask { get; } = 0xFFFF;

    /// <summary>Size of an extended component (2 and up) in bytes.</summary>
    public int Size(int component) => _size[component];

    /// <summary>Offset of an extended component in the standard format.</summary>
    public int StandardOffset(int component) => _offset[component];

    /// <summary>The user components that a standard-format area of <paramref name="areaLength"/> bytes has room for.</summary>
    public ulong UserComponentsWithin(int areaLength)
    {
        ulong held = UserComponents & 3;
        for (ulong rest = UserComponents & ~3ul; rest != 0; rest &= rest - 1)
        {
            int i = System.Numerics.BitOperations.TrailingZeroCount(rest);
            held |= _offset[i] + _size[i] <= areaLength ? 1ul << i : 0;
        }

        return held;
    }

    /// <summary>The offset behind the components in <paramref name="components"/>, in the standard format.</summary>
    public int StandardLength(ulong components)
    {
        int length = ExtendedOffset;
        for (ulong rest = components & ~3ul; rest != 0; rest &= rest - 1)
        {
            int i = System.Numerics.BitOperations.TrailingZeroCount(rest);
            length = Math.Max(length, _offset[i] + _size[i]);
        }

        return length;
    }

    /// <summary>
    /// Where an extended component starts in the compacted format of <paramref name="format"/> (XCOMP_BV): behind the
    /// lower ones of the format, at a multiple of 64 where CPUID says so. With 63: the length of the whole.
    /// </summary>
    public int CompactedOffset(ulong format, int component)
    {
        int offset = ExtendedOffset;
        for (int i = 2; i < MaxComponents; i++)
        {
            bool here = (format >> i & 1) != 0;
            if (here && (_aligned >> i & 1) != 0)
            {
                offset = (offset + 63) & ~63;
            }

            if (i == component)
            {
                return offset;
            }

            offset += here ? _size[i] : 0;
        }

        return offset;
    }

    /// <summary>The length of the compacted format up to the highest of <paramref name="components"/>.</summary>
    public int CompactedLength(ulong format, ulong components)
    {
        components &= ~3ul & ((1ul << MaxComponents) - 1);
        if (components == 0)
        {
            return ExtendedOffset;
        }

        int last = System.Numerics.BitOperations.Log2(components);
        return CompactedOffset(format, last) + _size[last];
    }

    /// <summary>
    /// Takes a component in, unless its numbers leave no room for it: in the standard format, or behind all the others in the
    /// compacted one (supervisor components have no place in the former).
    /// </summary>
    private void Add(int component, int size, int offset, bool aligned)
    {
        bool user = (UserComponents >> component & 1) != 0;
        int compacted = (CompactedOffset(ulong.MaxValue, MaxComponents) + 63) & ~63;
        if (size is < 0 or > MaxAreaLength
            || compacted > MaxAreaLength - size
            || (user && (offset < ExtendedOffset || offset > MaxAreaLength - size)))
        {
            UserComponents &= ~(1ul << component);
            SupervisorComponents &= ~(1ul << component);
            return;
        }

        _size[component] = size;
        _offset[component] = offset;
        _aligned |= aligned ? 1ul << component : 0;
    }
}
