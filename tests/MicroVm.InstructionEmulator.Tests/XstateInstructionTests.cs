using FsCheck;
using FsCheck.Fluent;
using Iced.Intel;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>
/// The XSAVE family against this processor, from random states, feature masks and areas. Whether a component whose values
/// are the initial ones counts as in use is the processor's to choose, so areas are compared by what they restore to.
/// </summary>
public unsafe class XstateInstructionTests
{
    private const int AreaLength = 4096;
    private const int HeaderOffset = 512;
    private const ulong Compacted = 1ul << 63;
    private const ulong OperandGpa = TestGuest.Data;
    private const ulong NativeGpa = TestGuest.Data + 0x4000;
    private const ulong StateGpa = TestGuest.Data + 0x8000;
    private static readonly XstateLayout Layout = XstateLayout.Host;

    /// <summary>What the instructions here work on: what every process may use on a processor that has it.</summary>
    private static readonly ulong Enabled = Layout.UserComponents & 0xFF;

    private static readonly Dictionary<string, Action<Assembler>> Saves = new()
    {
        ["xsave"] = c => c.xsave(__[rsi]),
        ["xsave64"] = c => c.xsave64(__[rsi]),
        ["xsaveopt"] = c => c.xsaveopt(__[rsi]),
        ["xsaveopt64"] = c => c.xsaveopt64(__[rsi]),
        ["xsavec"] = c => c.xsavec(__[rsi]),
        ["xsavec64"] = c => c.xsavec64(__[rsi]),
    };

    private static readonly Dictionary<string, Action<Assembler>> Restores = new()
    {
        ["xrstor"] = c => c.xrstor(__[rsi]),
        ["xrstor64"] = c => c.xrstor64(__[rsi]),
    };

    public static TheoryData<string> SaveNames => [.. Saves.Keys];

    public static TheoryData<string> RestoreNames => [.. Restores.Keys];

    private static Gen<(byte[] State, ulong Requested, byte[] Old)> Cases() =>
        from state in States()
        from requested in Masks()
        from old in Bytes(AreaLength)
        select (state, requested, old);

    /// <summary>Any mask, mostly of components that exist.</summary>
    private static Gen<ulong> Masks() => Gen.OneOf(
        Gen.Choose(0, 255).Select(v => (ulong)v),
        Gen.Elements<ulong>(ulong.MaxValue, 1, 2, 4, 3, 6, 7, 0xE7));

    private static Gen<byte[]> Bytes(int length) => Gen.Choose(0, 255).Select(v => (byte)v).ArrayOf(64)
        .Select(seed => Enumerable.Range(0, length).Select(i => (byte)(seed[i % 64] + (i / 64 * 37))).ToArray());

    /// <summary>A valid standard-format area with random contents and some components in their initial state.</summary>
    private static Gen<byte[]> States() =>
        from area in Bytes(AreaLength)
        from present in Gen.Choose(0, 255).Select(v => (ulong)v)
        from mxcsr in Gen.Elements<uint>(0x1F80, 0x9FC0, 0x1FBF, 0x7F80)
        select MakeStandard(area, present & Enabled, mxcsr);

    private static byte[] MakeStandard(byte[] area, ulong present, uint mxcsr)
    {
        area = (byte[])area.Clone();
        area.AsSpan(HeaderOffset, 64).Clear();
        BitConverter.TryWriteBytes(area.AsSpan(HeaderOffset), present);
        FixLegacy(area, mxcsr);
        return area;
    }

    private static void FixLegacy(byte[] area, uint mxcsr)
    {
        // FCW with reserved bits as processors keep them, no pending exception, TOP random, and valid pointers.
        BitConverter.TryWriteBytes(area.AsSpan(0), (ushort)(0x037F | ((area[0] & 0xC) << 8)));
        BitConverter.TryWriteBytes(area.AsSpan(2), (ushort)(area[2] << 11));
        area[5] = 0;
        BitConverter.TryWriteBytes(area.AsSpan(6), (ushort)(area[6] & 0x7FF));
        area.AsSpan(8, 16).Clear();
        BitConverter.TryWriteBytes(area.AsSpan(8), 0x7fff_1234_5678ul + area[8]);
        BitConverter.TryWriteBytes(area.AsSpan(16), 0x7ffe_8765_4321ul + area[9]);
        BitConverter.TryWriteBytes(area.AsSpan(24), mxcsr);
        BitConverter.TryWriteBytes(area.AsSpan(28), Layout.MxcsrMask);
        for (int i = 0; i < 8; i++)
        {
            area.AsSpan(32 + (16 * i) + 10, 6).Clear();
        }
    }

    [Theory]
    [MemberData(nameof(SaveNames))]
    public void Saves_equal_the_processor(string name)
    {
        bool compact = name.StartsWith("xsavec", StringComparison.Ordinal);
        bool pointers64 = name.EndsWith("64", StringComparison.Ordinal);
        using TestGuest guest = new();
        using NativeXstate native = new(Saves[name]);
        using NativeXstate load = new(static c => c.nop());
        byte[] code = NativeInstruction.Assemble(Saves[name]);
        FakeVcpu vcpu = new(guest) { Xcr0 = Enabled };
        Prop.ForAll(Cases().ToArbitrary(), test =>
        {
            // Both write over the same old bytes; the handler's state is what the processor has after loading it.
            byte[] state = Native(guest, load, test.State, null, 0);
            Native(guest, native, test.State, test.Old, test.Requested);
            Handle(guest, vcpu, state, test.Old, test.Requested, code);
            Assert.Null(vcpu.Vector);

            byte[] theirs = Read(guest, NativeGpa);
            byte[] ours = Read(guest, OperandGpa);
            if (!pointers64 && (test.Requested & 1) != 0)
            {
                // The selectors beside 32-bit x87 pointers are not in KVM's state.
                theirs.AsSpan(12, 4).Clear();
                theirs.AsSpan(20, 4).Clear();
                ours.AsSpan(12, 4).Clear();
                ours.AsSpan(20, 4).Clear();
            }

            ulong requested = test.Requested & Enabled;
            ulong theirBv = BitConverter.ToUInt64(theirs, HeaderOffset);
            ulong ourBv = BitConverter.ToUInt64(ours, HeaderOffset);

            // A context switch within the native run may change what counts as in use, either way.
            ulong differing = ourBv ^ theirBv;
            Assert.Equal(0ul, differing & ~requested);
            Assert.Equal(theirs[(HeaderOffset + 8)..(HeaderOffset + 64)], ours[(HeaderOffset + 8)..(HeaderOffset + 64)]);
            if (differing == 0)
            {
                Assert.Equal(theirs, ours);
            }
            else
            {
                AssertRestoreTheSame(guest, load, theirs, ours, compact);
            }
        }).QuickCheckThrowOnFailure();
    }

    [Theory]
    [MemberData(nameof(RestoreNames))]
    public void Standard_restores_equal_the_processor(string name)
    {
        using TestGuest guest = new();
        using NativeXstate native = new(Restores[name]);
        using NativeXstate load = new(static c => c.nop());
        byte[] code = NativeInstruction.Assemble(Restores[name]);
        FakeVcpu vcpu = new(guest) { Xcr0 = Enabled };
        Prop.ForAll(Gen.Zip(States(), States()).ToArbitrary(), Masks().ToArbitrary(), (areas, requested) =>
        {
            byte[] state = Native(guest, load, areas.Item1, null, 0);
            byte[] theirs = Native(guest, native, areas.Item1, areas.Item2, requested);
            Handle(guest, vcpu, state, areas.Item2, requested, code);
            Assert.Null(vcpu.Vector);
            AssertSameState(guest, load, theirs, vcpu.Xsave);
        }).QuickCheckThrowOnFailure();
    }

    [Theory]
    [MemberData(nameof(RestoreNames))]
    public void Compacted_restores_equal_the_processor(string name)
    {
        using TestGuest guest = new();
        using NativeXstate native = new(Restores[name]);
        using NativeXstate load = new(static c => c.nop());
        byte[] code = NativeInstruction.Assemble(Restores[name]);
        FakeVcpu vcpu = new(guest) { Xcr0 = Enabled };
        Gen<byte[]> areas =
            from area in States()
            from format in Gen.Choose(0, 255).Select(v => (ulong)v & Enabled)
            from present in Gen.Choose(0, 255).Select(v => (ulong)v)
            select MakeCompacted(area, format, present & format);
        Prop.ForAll(Gen.Zip(States(), areas).ToArbitrary(), Masks().ToArbitrary(), (pair, requested) =>
        {
            byte[] state = Native(guest, load, pair.Item1, null, 0);
            byte[] theirs = Native(guest, native, pair.Item1, pair.Item2, requested);
            Handle(guest, vcpu, state, pair.Item2, requested, code);
            Assert.Null(vcpu.Vector);
            AssertSameState(guest, load, theirs, vcpu.Xsave);
        }).QuickCheckThrowOnFailure();
    }

    [SkippableFact]
    public void Supervisor_forms_equal_the_compacted_ones_without_supervisor_state()
    {
        Skip.IfNot(Layout.HasXsaves, "this processor has no XSAVES");
        using TestGuest guest = new();
        using NativeXstate load = new(static c => c.nop());
        FakeVcpu vcpu = new(guest) { Xcr0 = Enabled };
        vcpu.Msrs[0xDA0] = 0;
        Prop.ForAll(Cases().ToArbitrary(), test =>
        {
            Handle(guest, vcpu, test.State, test.Old, test.Requested, NativeInstruction.Assemble(c => c.xsavec64(__[rsi])));
            byte[] compacted = Read(guest, OperandGpa);
            Handle(guest, vcpu, test.State, test.Old, test.Requested, NativeInstruction.Assemble(c => c.xsaves64(__[rsi])));
            Assert.Equal(compacted, Read(guest, OperandGpa));
            compacted.AsSpan(HeaderOffset + 16, 48).Clear(); // old bytes, which the saving forms leave and restoring ones refuse
            byte[] before = [.. vcpu.Xsave];
            Handle(guest, vcpu, test.State, compacted, test.Requested, NativeInstruction.Assemble(c => c.xrstors64(__[rsi])));
            Assert.Null(vcpu.Vector);
            AssertSameState(guest, load, before, vcpu.Xsave);
        }).QuickCheckThrowOnFailure();
    }

    private static byte[] MakeCompacted(byte[] area, ulong format, ulong present)
    {
        area = (byte[])area.Clone();
        area.AsSpan(HeaderOffset, 64).Clear();
        BitConverter.TryWriteBytes(area.AsSpan(HeaderOffset), present);
        BitConverter.TryWriteBytes(area.AsSpan(HeaderOffset + 8), format | Compacted);
        return area;
    }

    /// <summary>Runs natively; the operand is left at <see cref="NativeGpa"/>. Gives the state afterwards.</summary>
    private static byte[] Native(TestGuest guest, NativeXstate native, byte[] state, byte[]? operand, ulong requested)
    {
        byte[] cleaned = (byte[])state.Clone();
        Assert.True(guest.Memory.TryWrite(StateGpa, cleaned));
        if (operand is not null)
        {
            Assert.True(guest.Memory.TryWrite(NativeGpa, operand));
        }

        // The processor's XCR0 may have more components (PKRU, AMX) than the fake vCPU's.
        native.Run(guest.Pointer(StateGpa), guest.Pointer(NativeGpa), requested & Enabled);
        return Read(guest, StateGpa);
    }

    private static void Handle(TestGuest guest, FakeVcpu vcpu, byte[] state, byte[] operand, ulong requested, byte[] code)
    {
        state.CopyTo(vcpu.Xsave, 0);
        Assert.True(guest.Memory.TryWrite(OperandGpa, operand));
        vcpu.Regs = new() { rsi = OperandGpa, rax = (uint)requested, rdx = requested >> 32, rflags = 2 };
        Assert.Equal(AssistResult.Completed, vcpu.Complete(code));
    }

    private static byte[] Read(TestGuest guest, ulong gpa) => new ReadOnlySpan<byte>(guest.Pointer(gpa), AreaLength).ToArray();

    /// <summary>Loads both states into the processor and compares what it has then.</summary>
    private static void AssertSameState(TestGuest guest, NativeXstate load, byte[] expected, byte[] actual)
    {
        byte[] first = Canonical(Native(guest, load, expected, null, 0));
        byte[] second = Canonical(Native(guest, load, actual, null, 0));
        Assert.Equal(first, second);
    }

    private static void AssertRestoreTheSame(TestGuest guest, NativeXstate load, byte[] expected, byte[] actual, bool compact)
    {
        using NativeXstate restore = new(static c => c.xrstor64(__[rsi]));
        byte[] zero = new byte[AreaLength];
        zero = MakeStandard(zero, 0, 0x1F80);
        if (!compact)
        {
            // Old bytes beside the requested components are no valid header.
            expected = (byte[])expected.Clone();
            actual = (byte[])actual.Clone();
            foreach (byte[] area in new[] { expected, actual })
            {
                ulong present = BitConverter.ToUInt64(area, HeaderOffset) & Enabled;
                area.AsSpan(HeaderOffset, 64).Clear();
                BitConverter.TryWriteBytes(area.AsSpan(HeaderOffset), present);
                BitConverter.TryWriteBytes(area.AsSpan(24), 0x1F80);
            }
        }

        if (compact)
        {
            expected.AsSpan(HeaderOffset + 16, 48).Clear();
            actual.AsSpan(HeaderOffset + 16, 48).Clear();
        }

        byte[] first = Canonical(Native(guest, restore, zero, expected, ulong.MaxValue));
        byte[] second = Canonical(Native(guest, restore, zero, actual, ulong.MaxValue));
        Assert.Equal(first, second);
    }

    /// <summary>A standard-format state without what carries no information: XSTATE_BV, reserved bytes, and what is behind it.</summary>
    private static byte[] Canonical(byte[] state)
    {
        state.AsSpan(416, 160).Clear();
        byte[] canonical = state[..XstateLayout.ExtendedOffset];
        for (int component = 2; component < XstateLayout.MaxComponents; component++)
        {
            // Some processors leave holes between components, which nothing writes.
            if ((Enabled & (1ul << component)) != 0)
            {
                canonical = [.. canonical, .. state.AsSpan(Layout.StandardOffset(component), Layout.Size(component))];
            }
        }

        return canonical;
    }
}
