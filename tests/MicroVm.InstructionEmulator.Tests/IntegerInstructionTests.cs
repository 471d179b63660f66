using FsCheck;
using FsCheck.Fluent;
using Iced.Intel;
using MicroVm.Kvm.Native;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>Integer instructions: handler and processor from the same random state give the same state.</summary>
public unsafe class IntegerInstructionTests
{
    private const ulong Cf = 1;
    private const ulong Pf = 4;
    private const ulong Af = 0x10;
    private const ulong Zf = 0x40;
    private const ulong Sf = 0x80;
    private const ulong Of = 0x800;
    private const ulong Arithmetic = Cf | Pf | Af | Zf | Sf | Of;
    private const int OperandLength = 64;

    /// <summary>Instruction, and the flags that the manuals leave undefined after it.</summary>
    private static readonly Dictionary<string, (Action<Assembler> Code, ulong UndefinedFlags)> Cases = new()
    {
        ["popcnt r64, r64"] = (c => c.popcnt(rax, rbx), 0),
        ["popcnt r32, r32"] = (c => c.popcnt(eax, r9d), 0),
        ["popcnt r16, r16"] = (c => c.popcnt(ax, bx), 0),
        ["popcnt r64, m64"] = (c => c.popcnt(r10, __qword_ptr[rsi + (r12 * 8) + 8]), 0),
        ["popcnt r32, m32"] = (c => c.popcnt(eax, __dword_ptr[rsi + 1]), 0),
        ["lzcnt r64, r64"] = (c => c.lzcnt(rax, rbx), Of | Sf | Pf | Af),
        ["lzcnt r32, r32"] = (c => c.lzcnt(eax, ebx), Of | Sf | Pf | Af),
        ["lzcnt r16, m16"] = (c => c.lzcnt(ax, __word_ptr[rsi]), Of | Sf | Pf | Af),
        ["tzcnt r64, r64"] = (c => c.tzcnt(rax, rbx), Of | Sf | Pf | Af),
        ["tzcnt r32, m32"] = (c => c.tzcnt(edx, __dword_ptr[rsi + 4]), Of | Sf | Pf | Af),
        ["tzcnt r16, r16"] = (c => c.tzcnt(dx, cx), Of | Sf | Pf | Af),
        ["andn r64"] = (c => c.andn(rax, rbx, rcx), Af | Pf),
        ["andn r32, m32"] = (c => c.andn(eax, ebx, __dword_ptr[rsi]), Af | Pf),
        ["bextr r64"] = (c => c.bextr(rax, rbx, rcx), Af | Sf | Pf),
        ["bextr r32"] = (c => c.bextr(eax, ebx, ecx), Af | Sf | Pf),
        ["bzhi r64"] = (c => c.bzhi(rax, rbx, rcx), Af | Pf),
        ["bzhi r32"] = (c => c.bzhi(eax, ebx, ecx), Af | Pf),
        ["blsi r64"] = (c => c.blsi(rax, rbx), Af | Pf),
        ["blsi r32"] = (c => c.blsi(eax, ebx), Af | Pf),
        ["blsr r64"] = (c => c.blsr(rax, rbx), Af | Pf),
        ["blsr r32"] = (c => c.blsr(eax, ebx), Af | Pf),
        ["blsmsk r64"] = (c => c.blsmsk(rax, rbx), Af | Pf),
        ["blsmsk r32"] = (c => c.blsmsk(eax, ebx), Af | Pf),
        ["rorx r64"] = (c => c.rorx(rax, rbx, 13), 0),
        ["rorx r32"] = (c => c.rorx(eax, ebx, 45), 0),
        ["sarx r64"] = (c => c.sarx(rax, rbx, rcx), 0),
        ["sarx r32"] = (c => c.sarx(eax, ebx, ecx), 0),
        ["shlx r64"] = (c => c.shlx(rax, rbx, rcx), 0),
        ["shlx r32"] = (c => c.shlx(eax, ebx, ecx), 0),
        ["shrx r64"] = (c => c.shrx(rax, rbx, rcx), 0),
        ["shrx r32, m32"] = (c => c.shrx(eax, __dword_ptr[rsi + 3], ecx), 0),
        ["pdep r64"] = (c => c.pdep(rax, rbx, rcx), 0),
        ["pdep r32"] = (c => c.pdep(eax, ebx, ecx), 0),
        ["pext r64"] = (c => c.pext(rax, rbx, rcx), 0),
        ["pext r32"] = (c => c.pext(eax, ebx, ecx), 0),
        ["mulx r64"] = (c => c.mulx(rax, rbx, rcx), 0),
        ["mulx r64, same"] = (c => c.mulx(rax, rax, rcx), 0),
        ["mulx r32"] = (c => c.mulx(eax, ebx, ecx), 0),
        ["adcx r64"] = (c => c.adcx(rax, rbx), 0),
        ["adcx r32"] = (c => c.adcx(eax, ebx), 0),
        ["adox r64"] = (c => c.adox(rax, rbx), 0),
        ["adox r32"] = (c => c.adox(eax, ebx), 0),
        ["crc32 r32, r8"] = (c => c.crc32(eax, ch), 0),
        ["crc32 r32, r16"] = (c => c.crc32(eax, bx), 0),
        ["crc32 r32, m32"] = (c => c.crc32(eax, __dword_ptr[rsi]), 0),
        ["crc32 r64, r64"] = (c => c.crc32(rax, rbx), 0),
        ["movbe r64, m64"] = (c => c.movbe(rax, __qword_ptr[rsi + 5]), 0),
        ["movbe m32, r32"] = (c => c.movbe(__dword_ptr[rsi + 5], r15d), 0),
        ["movbe m16, r16"] = (c => c.movbe(__word_ptr[rsi + 5], cx), 0),
        ["cmpxchg16b"] = (c => c.cmpxchg16b(__xmmword_ptr[rsi + 16]), 0),
        ["lock cmpxchg16b"] = (c => c.@lock.cmpxchg16b(__xmmword_ptr[rsi]), 0),
    };

    public static TheoryData<string> CaseNames => [.. Cases.Keys];

    [Theory]
    [MemberData(nameof(CaseNames))]
    public void Equals_the_processor(string name)
    {
        (Action<Assembler> code, ulong undefined) = Cases[name];
        using TestGuest guest = new();
        using NativeInstruction native = new(code);
        FakeVcpu vcpu = new(guest);
        Prop.ForAll(RandomState().ToArbitrary(), state => Compare(guest, vcpu, native, undefined, state)).QuickCheckThrowOnFailure();
    }

    /// <summary>Random registers, half of them with patterns that instructions treat specially, and operand bytes.</summary>
    private static Gen<(ulong[] Registers, byte[] Operand, bool Equal)> RandomState()
    {
        Gen<ulong> word = Gen.OneOf(
            Gen.Choose(int.MinValue, int.MaxValue).Two().Select(v => ((ulong)(uint)v.Item1 << 32) | (uint)v.Item2),
            Gen.Elements<ulong>(0, 1, ulong.MaxValue, 0x8000_0000, 0xFFFF_FFFF, 1ul << 63, 0x7FFF_FFFF_FFFF_FFFF, 0xFFFF, 0x0820),
            Gen.Choose(0, 63).Select(n => 1ul << n));
        return from registers in word.ArrayOf(16)
               from operand in Gen.Choose(0, 255).Select(v => (byte)v).ArrayOf(OperandLength)
               from equal in Gen.Elements<bool>(true, false)
               select (registers, operand, equal);
    }

    private static void Compare(
        TestGuest guest, FakeVcpu vcpu, NativeInstruction native, ulong undefined, (ulong[] Registers, byte[] Operand, bool Equal) state)
    {
        const ulong NativeData = TestGuest.Data + 0x1000;
        ulong[] r = state.Registers;
        kvm_regs before = new()
        {
            rax = r[0],
            rbx = r[1],
            rcx = r[2],
            rdx = r[3],
            rdi = r[4],
            rbp = r[5],
            r8 = r[6],
            r9 = r[7],
            r10 = r[8],
            r11 = r[9],
            r12 = r[10] & 3,
            r13 = r[11],
            r14 = r[12],
            r15 = r[13],
            rflags = 2 | (r[14] & Arithmetic),
        };
        if (state.Equal)
        {
            before.rax = BitConverter.ToUInt64(state.Operand, 0);
            before.rdx = BitConverter.ToUInt64(state.Operand, 8);
        }

        guest.Memory.TryWrite(TestGuest.Data, state.Operand);
        guest.Memory.TryWrite(NativeData, state.Operand);
        kvm_regs expected = before;
        expected.rsi = (ulong)guest.Pointer(NativeData);
        native.Run(ref expected);
        expected.rsi = TestGuest.Data;

        vcpu.Regs = before;
        vcpu.Regs.rsi = TestGuest.Data;
        Assert.Equal(AssistResult.Completed, vcpu.Complete(native.Bytes));
        Assert.Null(vcpu.Vector);
        Assert.Equal(TestGuest.CodeAddress + (ulong)native.Bytes.Length, vcpu.Regs.rip);

        kvm_regs actual = vcpu.Regs;
        actual.rip = expected.rip;
        actual.rflags &= Arithmetic & ~undefined;
        expected.rflags &= Arithmetic & ~undefined;
        Assert.Equal(expected, actual);
        Assert.Equal(
            new ReadOnlySpan<byte>(guest.Pointer(NativeData), OperandLength),
            new ReadOnlySpan<byte>(guest.Pointer(TestGuest.Data), OperandLength));
    }
}
