using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>Extended state beyond 4 KiB (AMX), on any processor: the layout is one that CPUID gives on a processor with AMX.</summary>
public sealed class LargeXstateTests : IDisposable
{
    private const ulong Saved = TestGuest.SmallPages + 0xfc0; // 64 bytes before a page's end
    private const int TileConfig = 17;
    private const int TileData = 18;
    private readonly TestGuest _guest = new();

    public void Dispose() => _guest.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Tiles_are_saved_whole_and_restored(bool compacted)
    {
        XstateLayout layout = new(WithAmx());
        FakeVcpu cpu = new(_guest, layout);
        Assert.Equal(11008, cpu.XsaveSize);
        byte[] state = State(layout);
        state.CopyTo(cpu.Xsave, 0);
        Complete(cpu, compacted ? NativeInstruction.Assemble(c => c.xsavec64(__[rsi])) : NativeInstruction.Assemble(c => c.xsave64(__[rsi])));

        int tiles = compacted ? 576 + 0x100 + 0x40 + 0x200 + 0x400 + 8 : 0xac0;
        tiles = (tiles + 63) & ~63;
        byte[] saved = new byte[11008];
        Assert.True(_guest.Memory.TryRead(Saved, saved));
        Assert.Equal(state[0xac0..0xb00], saved[tiles..(tiles + 0x40)]);
        Assert.Equal(state[0xb00..0x2b00], saved[(tiles + 0x40)..(tiles + 0x2040)]);

        cpu.Xsave.AsSpan().Clear();
        Complete(cpu, NativeInstruction.Assemble(c => c.xrstor64(__[rsi])));
        Assert.Equal(0x602e7ul, BitConverter.ToUInt64(cpu.Xsave, 512));
        Assert.Equal(state[0x240..0x340], cpu.Xsave[0x240..0x340]);
        Assert.Equal(state[0xac0..0x2b00], cpu.Xsave[0xac0..0x2b00]);
    }

    [Fact]
    public void Tiles_in_their_initial_state_are_cleared_by_a_restore()
    {
        XstateLayout layout = new(WithAmx());
        FakeVcpu cpu = new(_guest, layout);
        State(layout).CopyTo(cpu.Xsave, 0);
        byte[] initial = new byte[576];
        Assert.True(_guest.Memory.TryWrite(Saved, initial));
        Complete(cpu, NativeInstruction.Assemble(c => c.xrstor64(__[rsi])), 1ul << TileData);
        Assert.Equal(-1, cpu.Xsave.AsSpan(0xb00, 0x2000).IndexOfAnyExcept((byte)0));
        Assert.NotEqual(0, cpu.Xsave[0xac1]);
        Assert.Equal(0x202e7ul, BitConverter.ToUInt64(cpu.Xsave, 512));
    }

    // KVM without KVM_CAP_XSAVE2 holds 4 KiB: there the guest cannot enable the rest.
    [Fact]
    public void What_KVM_does_not_hold_cannot_be_enabled()
    {
        XstateLayout layout = new(WithAmx());
        FakeVcpu cpu = new(_guest, layout, xsaveSize: 4096) { Xcr0 = 0x2e7 };
        cpu.Regs = new() { rax = 0x602e7, rflags = 2 };
        cpu.Complete(NativeInstruction.Assemble(c => c.xsetbv()));
        Assert.Equal(Kvm.Native.KvmAbi.GP_VECTOR, cpu.Vector);
        Complete(cpu, NativeInstruction.Assemble(c => c.xsavec64(__[rsi])));
        Assert.Equal(0x2e7ul | (1ul << 63), _guest.Read(Saved + 520));
    }

    [Fact]
    public void State_that_KVM_does_not_hold_is_refused_by_name()
    {
        FakeVcpu cpu = new(_guest, new XstateLayout(WithAmx()), xsaveSize: 4096);
        cpu.Regs = new() { rsi = Saved, rax = uint.MaxValue, rdx = uint.MaxValue, rflags = 2 };
        Assert.Equal(AssistResult.Unsupported, cpu.Complete(NativeInstruction.Assemble(c => c.xsave64(__[rsi]))));
        Assert.Contains("XCR0 is 0x602e7", cpu.Failure, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(-1, 0xb00)]
    [InlineData(0x2000, 0x7000)]
    [InlineData(0x2000, int.MaxValue)]
    [InlineData(0x2000, 0)]
    [InlineData(int.MaxValue, 0xb00)]
    public void A_component_without_room_does_not_exist(int size, int offset)
    {
        XstateLayout layout = new(WithAmx(size, offset));
        Assert.Equal(0x202e7ul, layout.UserComponents);
        Assert.Equal(0xb00, layout.StandardLength(ulong.MaxValue >> 1));
        Assert.InRange(layout.CompactedLength(ulong.MaxValue, ulong.MaxValue), 576, XstateLayout.MaxAreaLength);
    }

    private static byte[] State(XstateLayout layout)
    {
        byte[] state = new byte[11008];
        for (int i = 0; i < state.Length; i++)
        {
            state[i] = (byte)((i * 7) | 1);
        }

        state.AsSpan(512, 64).Clear();
        BitConverter.TryWriteBytes(state.AsSpan(512), layout.UserComponents);
        BitConverter.TryWriteBytes(state.AsSpan(24), 0x1F80u);
        return state;
    }

    private static Func<int, int, (int Eax, int Ebx, int Ecx, int Edx)> WithAmx(int tileSize = 0x2000, int tileOffset = 0xb00) => (leaf, subleaf) => (leaf, subleaf) switch
    {
        (0, _) => (0x20, 0, 0, 0),
        (0xd, 0) => (0x602e7, 0x2b00, 0x2b00, 0),
        (0xd, 1) => (0x1f, 0x2a00, 0x1800, 0),
        (0xd, 2) => (0x100, 0x240, 0, 0),
        (0xd, 5) => (0x40, 0x440, 0, 0),
        (0xd, 6) => (0x200, 0x480, 0, 0),
        (0xd, 7) => (0x400, 0x680, 0, 0),
        (0xd, 9) => (8, 0xa80, 0, 0),
        (0xd, 11) => (0x10, 0, 1, 0),
        (0xd, 12) => (0x18, 0, 1, 0),
        (0xd, TileConfig) => (0x40, 0xac0, 2, 0),
        (0xd, TileData) => (tileSize, tileOffset, 6, 0),
        _ => default,
    };

    private static void Complete(FakeVcpu cpu, byte[] code, ulong requested = ulong.MaxValue)
    {
        cpu.Regs = new() { rsi = Saved, rax = (uint)requested, rdx = requested >> 32, rflags = 2 };
        Assert.Equal(AssistResult.Completed, cpu.Complete(code));
        Assert.Null(cpu.Vector);
    }
}
