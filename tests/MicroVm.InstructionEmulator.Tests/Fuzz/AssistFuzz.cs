using MicroVm.Tests.Shared.Fuzz;

namespace MicroVm.InstructionEmulator.Tests.Fuzz;

/// <summary>Instructions that the assist is asked to complete, with any registers and page tables: done, a fault, or refused by name.</summary>
public sealed class AssistFuzz
{
    private static readonly byte[] Prefixes = [0x66, 0xf0, 0xf2, 0xf3, 0x48, 0x4c, 0x2e, 0x65, 0x67, 0x41];

    // What the handlers complete, up to the ModRM byte.
    private static readonly byte[][] Opcodes =
    [
        [0x0f, 0xae], [0x0f, 0xc7], [0xf3, 0x0f, 0xb8], [0xf3, 0x0f, 0xbc], [0xf3, 0x0f, 0xbd], [0x0f, 0x01], [0xcc], [0x9b], [0x0f, 0x01, 0xca], [0x0f, 0x01, 0xcb],
        [0xf3, 0x0f, 0xae], [0x66, 0x0f, 0xae], [0x0f, 0x38, 0xf0], [0x0f, 0x18], [0x0f, 0x0d], [0x0f, 0x31], [0x0f, 0x6f], [0xf3, 0x0f, 0x6f], [0x66, 0x0f, 0x7f],
        [0x0f, 0x10], [0x0f, 0x11], [0xc4, 0xe2, 0x78, 0xf7], [0xc4, 0xe2, 0xfb, 0xf6], [0xc5, 0xfe, 0x6f], [0x66, 0x0f, 0x38, 0x82], [0xcd], [0xf1], [0x0f, 0x0b],
    ];

    [Fact]
    public void Instructions() => Fuzzing.Run("assist", random =>
    {
        using TestGuest guest = new();
        FakeVcpu cpu = new(guest);
        Span<byte> code = stackalloc byte[32];
        for (int i = 0; i < 200; i++)
        {
            Registers(cpu, random);
            random.NextBytes(code);
            int at = 0;
            for (int prefixes = random.Next(3); prefixes > 0; prefixes--)
            {
                code[at++] = Prefixes[random.Next(Prefixes.Length)];
            }

            Opcodes[random.Next(Opcodes.Length)].CopyTo(code[at..]);
            if (random.Next(8) == 0)
            {
                guest.MapSmall(TestGuest.SmallPages + ((ulong)random.Next(512) << 12), (ulong)random.NextInt64(), (ulong)random.Next(8));
            }

            // Near the end of a page, too, and beyond RAM.
            ulong rip = random.Next(4) switch
            {
                0 => TestGuest.SmallPages + 0x1000 - (ulong)random.Next(16),
                1 => TestGuest.RamSize - (ulong)random.Next(40),
                _ => TestGuest.CodeAddress,
            };
            _ = guest.Memory.TryWrite(rip, code);
            cpu.Regs.rip = rip;
            if (cpu.CompleteAtRip() == AssistResult.Unsupported)
            {
                Assert.NotEqual("", cpu.Failure);
            }
        }
    });

    private static void Registers(FakeVcpu cpu, Random random)
    {
        ref Kvm.Native.kvm_regs regs = ref cpu.Regs;
        foreach (ref ulong register in new Span<ulong>(ref regs.rax))
        {
            register = (ulong)random.NextInt64();
        }

        regs.rbx = Address(random);
        regs.rcx = random.Next(2) == 0 ? (ulong)random.Next(4) : Address(random);
        regs.rdx = Address(random);
        regs.rsi = Address(random);
        regs.rdi = Address(random);
        regs.rsp = Address(random);
        regs.rbp = Address(random);
        regs.r8 = Address(random);
        regs.r15 = Address(random);
        regs.rflags = 2 | ((ulong)random.Next(0x40_0000) & ~8ul);
        cpu.Sregs.cs.selector = cpu.Sregs.ss.selector = (ushort)(random.Next(2) == 0 ? 0x10 : 0x33);
        cpu.Sregs.cr0 = random.Next(8) == 0 ? (ulong)random.NextInt64() | 0x8000_0001 : 0x8005_0033;
        cpu.Sregs.cr4 = random.Next(8) == 0 ? (ulong)random.Next() | 0x20 : 0x20 | 0x600 | (1 << 18);
        random.NextBytes(cpu.Xsave.AsSpan(512, 64 * random.Next(2)));
    }

    private static ulong Address(Random random) => random.Next(8) switch
    {
        0 => (ulong)random.NextInt64(long.MinValue, long.MaxValue),
        1 => TestGuest.RamSize - (ulong)random.Next(80),
        2 => TestGuest.SmallPages + (ulong)random.Next(1 << 21),
        3 => (ulong)random.Next(1 << 16),
        _ => TestGuest.Data + ((ulong)random.Next(1 << 12) & ~63ul),
    };
}
