using Iced.Intel;
using MicroVm.Kvm.Native;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>Instructions on system registers and vectors, counting, and what the common path costs.</summary>
public sealed class SystemInstructionTests : IDisposable
{
    private readonly TestGuest _guest = new();
    private readonly FakeVcpu _vcpu;

    public SystemInstructionTests() => _vcpu = new FakeVcpu(_guest);

    public void Dispose() => _guest.Dispose();

    [Fact]
    public void Segment_bases_are_read_and_written_when_enabled()
    {
        _vcpu.Regs = new kvm_regs { rax = 0x7f00_1234_5678, rflags = 2 };
        Run(c => c.wrfsbase(rax), KvmAbi.UD_VECTOR);
        _vcpu.Sregs.cr4 |= 1 << 16;
        Run(c => c.wrfsbase(rax));
        Run(c => c.wrgsbase(eax));
        Run(c => c.rdfsbase(rbx));
        Run(c => c.rdgsbase(rcx));
        Assert.Equal((0x7f00_1234_5678ul, 0x1234_5678ul), (_vcpu.Regs.rbx, _vcpu.Regs.rcx));
        Assert.Equal(0x7f00_1234_5678ul, _vcpu.Sregs.fs.@base);
        _vcpu.Regs.rax = 1ul << 60;
        Run(c => c.wrfsbase(rax), KvmAbi.GP_VECTOR);
    }

    [Fact]
    public void An_operand_behind_gs_uses_its_base()
    {
        _vcpu.Sregs.gs.@base = TestGuest.Data;
        _guest.Write(TestGuest.Data + 0x40, 0xFF);
        Run(c => c.popcnt(rax, __qword_ptr.gs[0x40]));
        Assert.Equal(8ul, _vcpu.Regs.rax);
    }

    [Fact]
    public void An_operand_relative_to_rip_is_behind_the_instruction()
    {
        byte[] code = [0xf3, 0x48, 0x0f, 0xb8, 0x05, 0x10, 0x00, 0x00, 0x00]; // popcnt rax, [rip+0x10]
        _guest.Write(TestGuest.CodeAddress + 9 + 0x10, 0x7);
        Assert.Equal(AssistResult.Completed, _vcpu.Complete(code));
        Assert.Equal(3ul, _vcpu.Regs.rax);
    }

    [Fact]
    public void Access_flag_is_set_and_cleared_at_cpl_0()
    {
        Run(c => c.stac());
        Assert.Equal(1ul << 18, _vcpu.Regs.rflags & (1ul << 18));
        Run(c => c.clac());
        Assert.Equal(0ul, _vcpu.Regs.rflags & (1ul << 18));
        _vcpu.Sregs.cs.selector |= 3;
        Run(c => c.stac(), KvmAbi.UD_VECTOR);
    }

    [Fact]
    public void Time_stamps_come_from_the_vcpus_msrs()
    {
        _vcpu.Msrs[0x10] = 0x1234_5678_9abc;
        _vcpu.Msrs[0xC000_0103] = 77;
        Run(c => c.rdtscp());
        Assert.Equal((0x5678_9abcul, 0x1234ul, 77ul), (_vcpu.Regs.rax, _vcpu.Regs.rdx, _vcpu.Regs.rcx));
        Run(c => c.rdpid(rbx));
        Assert.Equal(77ul, _vcpu.Regs.rbx);
    }

    [Fact]
    public void Invpcid_flushes_or_refuses()
    {
        _vcpu.Regs = new kvm_regs { rsi = TestGuest.Data, rax = 2, rflags = 2 };
        Run(c => c.invpcid(rax, __xmmword_ptr[rsi]));
        Assert.Equal(1, _vcpu.TlbFlushes);
        _vcpu.Regs.rax = 4;
        Run(c => c.invpcid(rax, __xmmword_ptr[rsi]), KvmAbi.GP_VECTOR);
        _vcpu.Regs.rax = 1;
        _guest.Write(TestGuest.Data, 0x1000);
        Run(c => c.invpcid(rax, __xmmword_ptr[rsi]), KvmAbi.GP_VECTOR);
        Assert.Equal(1, _vcpu.TlbFlushes);
    }

    [Fact]
    public void Hints_do_nothing_and_cache_lines_must_be_mapped()
    {
        Run(c => c.endbr64());
        Run(c => c.prefetcht0(__byte_ptr[rsi]));
        Run(c => c.wbinvd());
        _vcpu.Regs = new kvm_regs { rsi = TestGuest.Data, rflags = 2 };
        Run(c => c.clwb(__byte_ptr[rsi]));
        _guest.MapSmall(TestGuest.SmallPages, 0, 0);
        _vcpu.Regs.rsi = TestGuest.SmallPages;
        Run(c => c.clflushopt(__byte_ptr[rsi]), KvmAbi.PF_VECTOR);
    }

    [Fact]
    public void Mxcsr_is_loaded_and_stored()
    {
        _vcpu.Regs = new kvm_regs { rsi = TestGuest.Data, rflags = 2 };
        _guest.Write(TestGuest.Data, 0x9FC0);
        Run(c => c.ldmxcsr(__dword_ptr[rsi]));
        Assert.Equal(0x9FC0u, BitConverter.ToUInt32(_vcpu.Xsave, 24));
        Run(c => c.stmxcsr(__dword_ptr[rsi + 8]));
        Assert.Equal(0x9FC0ul, _guest.Read(TestGuest.Data + 8));
    }

    [Fact]
    public void Vectors_move_between_registers_and_memory()
    {
        _vcpu.Regs = new kvm_regs { rsi = TestGuest.Data, rflags = 2 };
        _guest.Write(TestGuest.Data, 0x1111_2222_3333_4444);
        _guest.Write(TestGuest.Data + 8, 0x5555_6666_7777_8888);
        Run(c => c.movdqu(xmm9, __xmmword_ptr[rsi]));
        Run(c => c.movaps(xmm3, xmm9));
        Run(c => c.movntdq(__xmmword_ptr[rsi + 32], xmm3));
        Assert.Equal((0x1111_2222_3333_4444ul, 0x5555_6666_7777_8888ul), (_guest.Read(TestGuest.Data + 32), _guest.Read(TestGuest.Data + 40)));
        Run(c => c.pxor(xmm3, xmm9));
        Run(c => c.movups(__xmmword_ptr[rsi + 64], xmm3));
        Assert.Equal((0ul, 0ul), (_guest.Read(TestGuest.Data + 64), _guest.Read(TestGuest.Data + 72)));
        Run(c => c.por(xmm3, __xmmword_ptr[rsi]));
        Run(c => c.pand(xmm3, xmm9));
        Run(c => c.movdqa(__xmmword_ptr[rsi + 80], xmm3));
        Assert.Equal(0x5555_6666_7777_8888ul, _guest.Read(TestGuest.Data + 88));
    }

    [Fact]
    public void Operands_across_two_pages_are_joined()
    {
        const ulong First = TestGuest.SmallPages + 0x9000;
        _guest.MapSmall(First + 0x1000, TestGuest.Data + 0x3000, 7);
        _guest.Write(First + 0xff8, 0xFF00_0000_0000_0000);
        _guest.Write(TestGuest.Data + 0x3000, 0x0F);
        _vcpu.Regs = new kvm_regs { rsi = First + 0xfff, rflags = 2 };
        Run(c => c.popcnt(rax, __qword_ptr[rsi]));
        Assert.Equal(12ul, _vcpu.Regs.rax);
    }

    [Fact]
    public void Each_mnemonic_is_counted()
    {
        Run(c => c.popcnt(rax, rbx));
        Run(c => c.popcnt(rax, rbx));
        Run(c => c.ud2(), KvmAbi.UD_VECTOR);
        Dictionary<string, long> counters = [];
        _vcpu.Assist.CollectCounters(counters.Add);
        Assert.Equal(new Dictionary<string, long> { ["assist.popcnt"] = 2, ["assist.ud2"] = 1 }, counters);
    }

    [Fact]
    public void An_unknown_instruction_is_named_with_its_bytes()
    {
        Assert.Equal(AssistResult.Unsupported, _vcpu.Complete(NativeInstruction.Assemble(c => c.vpaddd(ymm0, ymm1, ymm2))));
        Assert.Contains("Vpaddd (bytes C5F5FEC2", _vcpu.Failure, StringComparison.Ordinal);
        Assert.Contains("RIP 0x10000, CPL 0, 64-bit", _vcpu.Failure, StringComparison.Ordinal);
    }

    [Fact]
    public void Code_that_runs_into_an_absent_page_faults_as_a_fetch()
    {
        const ulong Page = TestGuest.SmallPages + 0xb000;
        _guest.MapSmall(Page + 0x1000, 0, 0);
        _guest.Memory.TryWrite(Page + 0xffe, [0xf3, 0x48]);
        _vcpu.Regs = new kvm_regs { rip = Page + 0xffe, rflags = 2 };
        _vcpu.CompleteAtRip();
        Assert.Equal((KvmAbi.PF_VECTOR, Page + 0x1000), (_vcpu.Vector!.Value, _vcpu.Sregs.cr2));
    }

    [Fact]
    public void A_context_switchs_save_and_restore_allocate_nothing()
    {
        byte[] save = NativeInstruction.Assemble(c => c.xsavec64(__[rsi]));
        byte[] restore = NativeInstruction.Assemble(c => c.xrstor64(__[rsi]));
        Assert.True(_guest.Memory.TryWrite(TestGuest.CodeAddress, save));
        Assert.True(_guest.Memory.TryWrite(TestGuest.CodeAddress + 64, restore));
        Switch();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 100; i++)
        {
            Switch();
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    private void Switch()
    {
        Step(TestGuest.CodeAddress);
        Step(TestGuest.CodeAddress + 64);
    }

    private void Step(ulong rip)
    {
        _vcpu.Regs = new kvm_regs { rip = rip, rsi = TestGuest.Data, rax = 0xE7, rflags = 2 };
        _vcpu.CompleteAtRip();
        if (_vcpu.Vector is not null)
        {
            Assert.Fail("the instruction faulted");
        }
    }

    private void Run(Action<Assembler> instruction, byte? vector = null)
    {
        Assert.Equal(AssistResult.Completed, _vcpu.Complete(NativeInstruction.Assemble(instruction)));
        Assert.Equal(vector, _vcpu.Vector);
    }
}
