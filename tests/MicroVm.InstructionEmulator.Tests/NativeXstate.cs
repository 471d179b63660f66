using Iced.Intel;
using MicroVm.Linux;
using static Iced.Intel.AssemblerRegisters;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>
/// Executes one XSAVE-family instruction on this processor: its extended state is loaded first, stored afterwards, and the
/// test process's own is put back.
/// </summary>
internal sealed unsafe class NativeXstate : IDisposable
{
    private readonly ExecutableCode _code;

    /// <summary>Makes a routine around <paramref name="instruction"/>, whose operand is [rsi] and mask EDX:EAX.</summary>
    public NativeXstate(Action<Assembler> instruction)
    {
        // rdi state in and out, rsi operand, rdx requested features, rcx room for the process's own state.
        _code = new ExecutableCode(NativeInstruction.Assemble(c =>
        {
            c.endbr64();
            c.mov(r8, rdx);
            c.mov(eax, -1);
            c.mov(edx, -1);
            c.xsave64(__[rcx]);
            c.xrstor64(__[rdi]);
            c.mov(eax, r8d);
            c.shr(r8, 32);
            c.mov(edx, r8d);
            instruction(c);
            c.mov(eax, -1);
            c.mov(edx, -1);
            c.xsave64(__[rdi]);
            c.xrstor64(__[rcx]);
            c.ret();
        }));
    }

    /// <summary>Runs it. Areas are 64-byte aligned and 16 KiB long; the state's header is rewritten as a whole.</summary>
    public void Run(byte* state, byte* operand, ulong requested)
    {
        byte* own = (byte*)System.Runtime.InteropServices.NativeMemory.AlignedAlloc(16384, 64);
        try
        {
            new Span<byte>(own, 16384).Clear();
            ((delegate* unmanaged<byte*, byte*, ulong, byte*, void>)_code.EntryPoint)(state, operand, requested, own);
        }
        finally
        {
            System.Runtime.InteropServices.NativeMemory.AlignedFree(own);
        }
    }

    public void Dispose() => _code.Dispose();
}
