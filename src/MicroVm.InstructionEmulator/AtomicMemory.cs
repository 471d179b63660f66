using System.Diagnostics;
using MicroVm.Linux;

namespace MicroVm.InstructionEmulator;

/// <summary>A 16-byte compare-and-exchange on guest memory, atomic against every vCPU and device thread.</summary>
/// <remarks>
/// The runtime has no 128-bit interlocked operation, so this is a small routine of machine code around
/// <c>lock cmpxchg16b</c>. It is made with the first assist of the process, before the VMM gives up its privileges.
/// </remarks>
internal static class AtomicMemory
{
    // System V: rdi target (16-byte aligned), rsi expected in and found out, rdx new value; returns 1 when exchanged.
    private static readonly ExecutableCode Code = new(
    [
        0xf3, 0x0f, 0x1e, 0xfa, // endbr64
        0x53, // push rbx
        0x49, 0x89, 0xd0, // mov r8, rdx
        0x48, 0x8b, 0x06, // mov rax, [rsi]
        0x48, 0x8b, 0x56, 0x08, // mov rdx, [rsi+8]
        0x49, 0x8b, 0x18, // mov rbx, [r8]
        0x49, 0x8b, 0x48, 0x08, // mov rcx, [r8+8]
        0xf0, 0x48, 0x0f, 0xc7, 0x0f, // lock cmpxchg16b [rdi]
        0x48, 0x89, 0x06, // mov [rsi], rax
        0x48, 0x89, 0x56, 0x08, // mov [rsi+8], rdx
        0x0f, 0x94, 0xc0, // sete al
        0x0f, 0xb6, 0xc0, // movzx eax, al
        0x5b, // pop rbx
        0xc3, // ret
    ]);

    /// <summary>Makes the routine now, while executable memory may still be mapped.</summary>
    public static void Prepare() => ObjectDisposedException.ThrowIf(Code.IsClosed, typeof(AtomicMemory));

    /// <summary>
    /// Stores <paramref name="value"/> when the target holds <paramref name="expected"/>, which is set to what was found.
    /// </summary>
    // Safe: the routine touches 16 bytes at each address: the caller's aligned target, and two values of this call, of which one is pinned.
    public static unsafe bool CompareExchange(UInt128* target, ref UInt128 expected, UInt128 value)
    {
        Debug.Assert((nuint)target % 16 == 0, "the target is not aligned");
        fixed (UInt128* found = &expected)
        {
            return ((delegate* unmanaged<UInt128*, UInt128*, UInt128*, int>)Code.EntryPoint)(target, found, &value) != 0;
        }
    }
}
