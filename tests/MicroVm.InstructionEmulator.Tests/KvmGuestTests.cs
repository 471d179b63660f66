using Iced.Intel;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>
/// Whole programs at CPL 0 of a guest on this host's KVM, with the assist in the run loop. On an ordinary KVM the processor
/// executes everything; the results must be the same.
/// </summary>
public unsafe class KvmGuestTests
{
    private const ulong Area = TestGuest.Data;

    // lzcnt is not here: KVM's emulator takes it for bsr and so never asks for it.
    [SkippableFact]
    public void Bit_counts_and_bit_fields()
    {
        using KvmGuest guest = KvmGuest.Start();
        guest.Run(c =>
        {
            c.mov(rax, 0x00FF_0000_1234_0000);
            c.popcnt(rbx, rax);
            c.tzcnt(rcx, rax);
            c.rorx(rsi, rax, 4);
            c.andn(rbp, rax, rbx);
        });
        Assert.Null(guest.Vector);
        const ulong Value = 0x00FF_0000_1234_0000;
        Assert.Equal((ulong)System.Numerics.BitOperations.PopCount(Value), guest.Regs.rbx);
        Assert.Equal((ulong)System.Numerics.BitOperations.TrailingZeroCount(Value), guest.Regs.rcx);
        Assert.Equal(System.Numerics.BitOperations.RotateRight(Value, 4), guest.Regs.rsi);
        Assert.Equal(~Value & guest.Regs.rbx, guest.Regs.rbp);
    }

    [SkippableFact]
    public void Compare_and_exchange_of_sixteen_bytes()
    {
        using KvmGuest guest = KvmGuest.Start();
        guest.Machine.Write(Area, 1);
        guest.Machine.Write(Area + 8, 2);
        guest.Run(c =>
        {
            c.mov(rsi, Area);
            c.mov(eax, 1);
            c.mov(edx, 2);
            c.mov(ebx, 3);
            c.mov(ecx, 4);
            c.@lock.cmpxchg16b(__xmmword_ptr[rsi]);
            c.sete(dil);
            c.@lock.cmpxchg16b(__xmmword_ptr[rsi]);
            c.setne(bpl);
        });
        Assert.Equal((3ul, 4ul), (guest.Machine.Read(Area), guest.Machine.Read(Area + 8)));
        Assert.Equal((3ul, 4ul), (guest.Regs.rax, guest.Regs.rdx));
        Assert.Equal((1, 1), ((byte)guest.Regs.rdi, (byte)guest.Regs.rbp));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void Extended_state_goes_through_memory_and_back(bool compacted)
    {
        using KvmGuest guest = KvmGuest.Start();
        ulong enabled = XstateLayout.Host.UserComponents & 0xE7;
        const ulong Second = Area + 0x2000;
        for (ulong i = 0; i < 64; i++)
        {
            guest.Machine.Write(Area + 0x4000 + (i * 8), 0x0101_0101_0101_0101 * i);
        }

        // Load vectors from memory by an area made of them, save, initialize, restore, save again.
        WriteArea(guest.Machine, Area, enabled);
        guest.Run(c =>
        {
            c.xor(ecx, ecx);
            c.mov(eax, (uint)enabled);
            c.xor(edx, edx);
            c.xsetbv();
            c.xgetbv();
            c.mov(r12, rax);
            c.mov(eax, (uint)enabled);
            c.xor(edx, edx);
            c.mov(rsi, Area);
            c.xrstor64(__[rsi]);
            c.mov(rsi, Second);
            Save(c, compacted);
            c.mov(rsi, Area + 0x6000);
            c.xrstor64(__[rsi]); // all zero: initial state
            c.mov(rsi, Second);
            c.xrstor64(__[rsi]);
            c.mov(rsi, Area + 0x8000);
            c.xsave64(__[rsi]);
        });
        Assert.Null(guest.Vector);
        Assert.Equal(enabled, guest.Regs.r12);
        ReadOnlySpan<byte> expected = new(guest.Machine.Pointer(Area), 0x1000);
        ReadOnlySpan<byte> actual = new(guest.Machine.Pointer(Area + 0x8000), 0x1000);
        Assert.Equal(enabled, BitConverter.ToUInt64(actual[512..]));
        Assert.Equal(expected[..28], actual[..28]);
        Assert.Equal(expected[32..416], actual[32..416]);
        for (int component = 2; component < XstateLayout.MaxComponents; component++)
        {
            // Some processors leave holes between components, which nothing writes.
            if ((enabled & (1ul << component)) != 0)
            {
                int offset = XstateLayout.Host.StandardOffset(component), size = XstateLayout.Host.Size(component);
                Assert.Equal(expected.Slice(offset, size), actual.Slice(offset, size));
            }
        }
    }

    [SkippableFact]
    public void Breakpoint_goes_on_behind_it_and_undefined_opcode_stays_at_it()
    {
        using KvmGuest guest = KvmGuest.Start();
        guest.Run(c => c.int3());
        Assert.Equal(KvmAbi.BP_VECTOR, guest.Vector);
        Assert.Equal(TestGuest.CodeAddress + 1, guest.FaultRip);
        guest.Run(c => c.ud2());
        Assert.Equal(KvmAbi.UD_VECTOR, guest.Vector);
        Assert.Equal(TestGuest.CodeAddress, guest.FaultRip);
    }

    [SkippableFact]
    public void Software_interrupt_goes_through_its_gate()
    {
        using KvmGuest guest = KvmGuest.Start();
        guest.Run(c => c.@int(5));
        Assert.Equal((byte)5, guest.Vector);
        Assert.Equal(TestGuest.CodeAddress + 2, guest.FaultRip);
    }

    [SkippableFact]
    public void Access_flag_and_waiting_for_the_fpu()
    {
        using KvmGuest guest = KvmGuest.Start();
        Skip.IfNot(System.Runtime.Intrinsics.X86.X86Base.CpuId(7, 0).Ebx >> 20 is var b && (b & 1) != 0, "this processor has no SMAP");
        guest.Run(c =>
        {
            c.stac();
            c.pushfq();
            c.pop(rbx);
            c.clac();
            c.pushfq();
            c.pop(rcx);
            c.wait();
        });
        Assert.Null(guest.Vector);
        Assert.Equal(1ul << 18, (guest.Regs.rbx ^ guest.Regs.rcx) & (1ul << 18));
        Assert.Equal(0ul, guest.Regs.rcx & (1ul << 18));
    }

    [SkippableFact]
    public void Faults_of_the_extended_state_instructions()
    {
        using KvmGuest guest = KvmGuest.Start();
        guest.Run(c =>
        {
            c.mov(rsi, Area + 8);
            c.mov(eax, 3);
            c.xor(edx, edx);
            c.xsave64(__[rsi]);
        });
        Assert.Equal((KvmAbi.GP_VECTOR, 0u), (guest.Vector!.Value, guest.FaultErrorCode));

        guest.Machine.Write(Area + 512, 1ul << 62);
        guest.Run(c =>
        {
            c.mov(rsi, Area);
            c.mov(eax, 3);
            c.xor(edx, edx);
            c.xrstor64(__[rsi]);
        });
        Assert.Equal((KvmAbi.GP_VECTOR, 0u), (guest.Vector!.Value, guest.FaultErrorCode));
    }

    [SkippableFact]
    public void Page_fault_of_an_operand_that_crosses_into_an_absent_page()
    {
        using KvmGuest guest = KvmGuest.Start();
        const ulong Page = TestGuest.SmallPages + 0x3000;
        guest.Machine.MapSmall(Page, Page, 0);
        guest.Run(c =>
        {
            c.mov(rsi, Page - 512);
            c.mov(eax, 3);
            c.xor(edx, edx);
            c.xsave64(__[rsi]);
        });
        Assert.Equal(KvmAbi.PF_VECTOR, guest.Vector);
        Assert.Equal(2u, guest.FaultErrorCode);
        Assert.Equal(Page, guest.Sregs.cr2);
        Assert.Equal(0ul, guest.Machine.Read(Page - 512));
    }

    [SkippableFact]
    public void Host_kind_is_found_and_leaves_the_vcpu_as_it_was()
    {
        using KvmGuest guest = KvmGuest.Start();
        guest.Vcpu.GetRegs(out kvm_regs regs);
        guest.Vcpu.GetSregs(out kvm_sregs sregs);
        HostKind kind = HostKind.Detect(guest.Vcpu, guest.Machine.Memory);
        Assert.Equal(HardwareVirtualization.IsPresent, kind == HostKind.Standard);
        bool popcnt = HostKind.CanRunPopcnt(guest.Vcpu, guest.Machine.Memory);
        Assert.True(popcnt || kind == HostKind.Pvm);
        guest.Vcpu.GetRegs(out kvm_regs regsAfter);
        guest.Vcpu.GetSregs(out kvm_sregs sregsAfter);
        Assert.Equal(regs, regsAfter);
        Assert.Equal(sregs.cs, sregsAfter.cs);
        Assert.Equal(sregs.cr0, sregsAfter.cr0);
        guest.Run(c => c.mov(eax, 0x1234));
        Assert.Equal(0x1234ul, guest.Regs.rax);
    }

    [SkippableFact]
    public void What_cannot_be_completed_is_named()
    {
        using KvmGuest guest = KvmGuest.Start();
        Skip.If(HostKind.Detect(guest.Vcpu, guest.Machine.Memory) == HostKind.Standard, "on this host the processor executes every instruction");
        string? failure = guest.TryRun(c => c.vpaddd(ymm0, ymm1, ymm2));
        Assert.NotNull(failure);
        Assert.Contains("Vpaddd", failure, StringComparison.Ordinal);
        Assert.Contains("0x10000", failure, StringComparison.Ordinal);
        Assert.Contains("C5F5FEC2", failure, StringComparison.Ordinal);
    }

    private static void Save(Assembler c, bool compacted)
    {
        if (compacted && XstateLayout.Host.HasXsavec)
        {
            c.xsavec64(__[rsi]);
        }
        else
        {
            c.xsave64(__[rsi]);
        }
    }

    private static void WriteArea(TestGuest machine, ulong at, ulong enabled)
    {
        Span<byte> area = new(machine.Pointer(at), 0x1000);
        for (int i = 0; i < area.Length; i++)
        {
            area[i] = (byte)((i * 7) + (i >> 8) + 1);
        }

        area[..32].Clear();
        area.Slice(512, 64).Clear();
        BitConverter.TryWriteBytes(area, (ushort)0x37F);
        BitConverter.TryWriteBytes(area[24..], 0x9FC0u);
        area[4] = 0xFF;
        for (int i = 0; i < 8; i++)
        {
            area.Slice(32 + (16 * i) + 10, 6).Clear();
        }

        BitConverter.TryWriteBytes(area[512..], enabled);
    }
}
