using Iced.Intel;
using MicroVm.Kvm.Native;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>The faults that the manuals give for each instruction, and that nothing changes when one is raised.</summary>
public sealed class FaultTests : IDisposable
{
    private const ulong Cr0Ts = 8;
    private const ulong Cr0Mp = 2;
    private const ulong Cr4Osxsave = 1 << 18;
    private const ulong Cr4Osfxsr = 1 << 9;
    private readonly TestGuest _guest = new();
    private readonly FakeVcpu _vcpu;

    public FaultTests() => _vcpu = new FakeVcpu(_guest);

    public static TheoryData<string> XsaveFamily =>
        ["xsave64", "xsaveopt64", "xsavec64", "xsaves64", "xrstor64", "xrstors64"];

    public void Dispose() => _guest.Dispose();

    [SkippableTheory]
    [MemberData(nameof(XsaveFamily))]
    public void Xsave_family_needs_osxsave_a_clear_ts_and_an_aligned_canonical_operand(string name)
    {
        RequireXsaves(name);
        byte[] code = Code(name);
        _vcpu.Sregs.cr4 &= ~Cr4Osxsave;
        AssertFault(code, KvmAbi.UD_VECTOR, null);
        _vcpu.Sregs.cr4 |= Cr4Osxsave;
        _vcpu.Sregs.cr0 |= Cr0Ts;
        AssertFault(code, KvmAbi.NM_VECTOR, null);
        _vcpu.Sregs.cr0 &= ~Cr0Ts;
        AssertFault(code, KvmAbi.GP_VECTOR, 0, operand: TestGuest.Data + 32);
        AssertFault(code, KvmAbi.GP_VECTOR, 0, operand: 0x8000_0000_0000_0000);
    }

    [SkippableTheory]
    [InlineData("xsaves64")]
    [InlineData("xrstors64")]
    public void Supervisor_forms_are_for_cpl_0(string name)
    {
        RequireXsaves(name);
        _vcpu.Sregs.cs.selector |= 3;
        AssertFault(Code(name), KvmAbi.GP_VECTOR, 0);
    }

    [Theory]
    [InlineData(1ul << 9, 0ul, 0ul, "standard: a component that XCR0 lacks")]
    [InlineData(1ul, 1ul, 0ul, "standard: bytes 8 to 15 not zero")]
    [InlineData(1ul, 0ul, 1ul, "standard: bytes 16 to 23 not zero")]
    [InlineData(1ul, (1ul << 63) | 6, 0ul, "compacted: XSTATE_BV outside XCOMP_BV")]
    [InlineData(1ul, (1ul << 63) | (1 << 9) | 1, 0ul, "compacted: XCOMP_BV outside XCR0")]
    [InlineData(1ul, (1ul << 63) | 1, 1ul, "compacted: bytes 16 to 63 not zero")]
    public void Xrstor_checks_the_header(ulong xstateBv, ulong xcompBv, ulong next, string why)
    {
        _vcpu.Xcr0 = 7;
        _guest.Write(TestGuest.Data + 512, xstateBv);
        _guest.Write(TestGuest.Data + 520, xcompBv);
        _guest.Write(TestGuest.Data + 528, next);
        AssertFault(Code("xrstor64"), KvmAbi.GP_VECTOR, 0);
        Assert.NotEmpty(why);
    }

    [Fact]
    public void Xrstor_refuses_reserved_mxcsr_bits_only_when_it_would_load_them()
    {
        _vcpu.Xcr0 = 7;
        _guest.Write(TestGuest.Data + 24, 0x8000_1F80);
        AssertFault(Code("xrstor64"), KvmAbi.GP_VECTOR, 0, mask: 2);
        AssertFault(Code("xrstor64"), KvmAbi.GP_VECTOR, 0, mask: 4);
        Assert.Equal(AssistResult.Completed, Complete(Code("xrstor64"), TestGuest.Data, 1));
        Assert.Null(_vcpu.Vector);

        // The compacted form does not look at it unless SSE is loaded.
        _guest.Write(TestGuest.Data + 520, (1ul << 63) | 7);
        Complete(Code("xrstor64"), TestGuest.Data, 7);
        Assert.Null(_vcpu.Vector);
        _guest.Write(TestGuest.Data + 512, 2);
        AssertFault(Code("xrstor64"), KvmAbi.GP_VECTOR, 0, mask: 2);
    }

    [SkippableFact]
    public void Xrstors_refuses_the_standard_format()
    {
        RequireXsaves("xrstors64");
        AssertFault(Code("xrstors64"), KvmAbi.GP_VECTOR, 0);
    }

    [SkippableTheory]
    [InlineData("xsaves64")]
    [InlineData("xrstors64")]
    public void A_processor_without_supervisor_forms_knows_no_such_instruction(string name)
    {
        Skip.If(XstateLayout.Host.HasXsaves, "this processor has XSAVES");
        AssertFault(Code(name), KvmAbi.UD_VECTOR, null);
    }

    [SkippableFact]
    public void Supervisor_state_is_refused_by_name()
    {
        ulong component = XstateLayout.Host.SupervisorComponents;
        Skip.If(component == 0, "this processor has no supervisor state");
        _vcpu.Msrs[0xDA0] = component;
        Assert.Equal(AssistResult.Unsupported, Complete(Code("xsaves64"), TestGuest.Data, ulong.MaxValue));
        Assert.Contains("IA32_XSS", _vcpu.Failure, StringComparison.Ordinal);
        Assert.Contains("xsaves64", _vcpu.Failure, StringComparison.Ordinal);
    }

    [Fact]
    public void Fwait_waits_for_ts_with_mp_and_raises_pending_exceptions()
    {
        byte[] code = NativeInstruction.Assemble(c => c.wait());
        _vcpu.Sregs.cr0 |= Cr0Ts;
        AssertFault(code, KvmAbi.NM_VECTOR, null);
        _vcpu.Sregs.cr0 &= ~Cr0Mp;
        _vcpu.Complete(code);
        Assert.Null(_vcpu.Vector);
        _vcpu.Sregs.cr0 &= ~Cr0Ts;
        BitConverter.TryWriteBytes(_vcpu.Xsave, 0x037E);
        _vcpu.Xsave[2] = 0x81;
        _vcpu.Xsave[512] = 1;
        AssertFault(code, KvmAbi.MF_VECTOR, null);
        _vcpu.Xsave[512] = 0;
        _vcpu.Complete(code);
        Assert.Null(_vcpu.Vector);
    }

    [Fact]
    public void Cmpxchg16b_needs_alignment_and_a_writable_page_and_is_whole_or_not_at_all()
    {
        byte[] code = NativeInstruction.Assemble(c => c.@lock.cmpxchg16b(__xmmword_ptr[rsi]));
        AssertFault(code, KvmAbi.GP_VECTOR, 0, operand: TestGuest.Data + 8);
        const ulong Page = TestGuest.SmallPages + 0x5000;
        _guest.MapSmall(Page, Page, 1);
        AssertFault(code, KvmAbi.PF_VECTOR, 3, operand: Page);
        Assert.Equal(Page, _vcpu.Sregs.cr2);
        Assert.True(_vcpu.SregsChanged);
    }

    [Fact]
    public void Traps_go_on_behind_the_instruction_and_undefined_opcodes_stay()
    {
        Assert.Equal(AssistResult.Completed, _vcpu.Complete([0xcc]));
        Assert.Equal((KvmAbi.BP_VECTOR, TestGuest.CodeAddress + 1), (_vcpu.Vector!.Value, _vcpu.Regs.rip));
        _vcpu.Complete([0xcd, 0x80]);
        Assert.Equal(((byte)0x80, TestGuest.CodeAddress + 2), (_vcpu.SoftwareInterrupt!.Value, _vcpu.Regs.rip));
        foreach (byte[] code in new byte[][] { [0x0f, 0x0b], [0x0f, 0xb9, 0xc0], [0x0f, 0xff, 0xc0], [0x06] })
        {
            AssertFault(code, KvmAbi.UD_VECTOR, null);
        }
    }

    [Fact]
    public void Single_stepping_traps_behind_the_instruction()
    {
        _vcpu.Regs.rflags = 2 | 0x100;
        _vcpu.Complete(NativeInstruction.Assemble(c => c.popcnt(rax, rbx)));
        Assert.Equal(KvmAbi.DB_VECTOR, _vcpu.Vector);
        Assert.Equal(1ul << 14, _vcpu.Dr6);
        Assert.Equal(TestGuest.CodeAddress + 5, _vcpu.Regs.rip);
    }

    [Fact]
    public void Mxcsr_and_vectors_need_osfxsr_and_a_clear_ts()
    {
        foreach (byte[] code in new[]
        {
            NativeInstruction.Assemble(c => c.ldmxcsr(__dword_ptr[rsi])),
            NativeInstruction.Assemble(c => c.stmxcsr(__dword_ptr[rsi])),
            NativeInstruction.Assemble(c => c.movups(xmm1, __xmmword_ptr[rsi])),
            NativeInstruction.Assemble(c => c.pxor(xmm1, xmm2)),
        })
        {
            _vcpu.Sregs.cr4 &= ~Cr4Osfxsr;
            AssertFault(code, KvmAbi.UD_VECTOR, null);
            _vcpu.Sregs.cr4 |= Cr4Osfxsr;
            _vcpu.Sregs.cr0 |= Cr0Ts;
            AssertFault(code, KvmAbi.NM_VECTOR, null);
            _vcpu.Sregs.cr0 &= ~Cr0Ts;
        }

        _guest.Write(TestGuest.Data, 0x10_0000);
        AssertFault(NativeInstruction.Assemble(c => c.ldmxcsr(__dword_ptr[rsi])), KvmAbi.GP_VECTOR, 0);
        AssertFault(NativeInstruction.Assemble(c => c.movaps(xmm1, __xmmword_ptr[rsi])), KvmAbi.GP_VECTOR, 0, operand: TestGuest.Data + 8);
    }

    [Theory]
    [InlineData(0, "x87 is always on")]
    [InlineData(5, "AVX without SSE")]
    [InlineData(0x27, "a part of AVX-512")]
    [InlineData(0xE3, "AVX-512 without AVX")]
    [InlineData(0x0B, "a part of MPX")]
    public void Xsetbv_refuses_invalid_values(uint value, string why)
    {
        _vcpu.Xcr0 = 3;
        _vcpu.Regs = new kvm_regs { rax = value, rflags = 2 };
        _vcpu.Complete(NativeInstruction.Assemble(c => c.xsetbv()));
        Assert.Equal((KvmAbi.GP_VECTOR, 3ul), (_vcpu.Vector!.Value, _vcpu.Xcr0));
        Assert.NotEmpty(why);
    }

    [Fact]
    public void Xsetbv_and_xgetbv_know_one_register()
    {
        _vcpu.Regs = new kvm_regs { rax = 7, rflags = 2 };
        _vcpu.Complete(NativeInstruction.Assemble(c => c.xsetbv()));
        Assert.Null(_vcpu.Vector);
        Assert.Equal(7ul, _vcpu.Xcr0);
        _vcpu.Regs.rcx = 1;
        _vcpu.Complete(NativeInstruction.Assemble(c => c.xsetbv()));
        Assert.Equal(KvmAbi.GP_VECTOR, _vcpu.Vector);
        _vcpu.Regs.rcx = 2;
        _vcpu.Complete(NativeInstruction.Assemble(c => c.xgetbv()));
        Assert.Equal(KvmAbi.GP_VECTOR, _vcpu.Vector);
        _vcpu.Regs.rcx = 0;
        _vcpu.Complete(NativeInstruction.Assemble(c => c.xgetbv()));
        Assert.Null(_vcpu.Vector);
        Assert.Equal((7ul, 0ul), (_vcpu.Regs.rax, _vcpu.Regs.rdx));
        _vcpu.Sregs.cs.selector |= 3;
        _vcpu.Complete(NativeInstruction.Assemble(c => c.xsetbv()));
        Assert.Equal(KvmAbi.GP_VECTOR, _vcpu.Vector);
    }

    private static void RequireXsaves(string name) =>
        Skip.If((name is "xsaves64" or "xrstors64") && !XstateLayout.Host.HasXsaves, "this processor has no XSAVES");

    private static byte[] Code(string name) => NativeInstruction.Assemble(c =>
    {
        switch (name)
        {
            case "xsave64": c.xsave64(__[rsi]); break;
            case "xsaveopt64": c.xsaveopt64(__[rsi]); break;
            case "xsavec64": c.xsavec64(__[rsi]); break;
            case "xsaves64": c.xsaves64(__[rsi]); break;
            case "xrstor64": c.xrstor64(__[rsi]); break;
            default: c.xrstors64(__[rsi]); break;
        }
    });

    private AssistResult Complete(byte[] code, ulong operand, ulong mask)
    {
        _vcpu.Regs = new kvm_regs { rsi = operand, rax = (uint)mask, rdx = mask >> 32, rflags = 2 };
        return _vcpu.Complete(code);
    }

    private void AssertFault(byte[] code, byte vector, uint? errorCode, ulong operand = TestGuest.Data, ulong mask = 7)
    {
        byte[] xsave = [.. _vcpu.Xsave];
        Assert.Equal(AssistResult.Completed, Complete(code, operand, mask));
        Assert.Equal((vector, errorCode), (_vcpu.Vector ?? byte.MaxValue, _vcpu.ErrorCode));
        Assert.Equal(TestGuest.CodeAddress, _vcpu.Regs.rip);
        Assert.Equal(xsave, _vcpu.Xsave);
    }
}
