/* The code of ChildCode.cs, which holds these bytes and is compared with this file by a test.

   Between clone and execve the child shares its parent's memory (CLONE_VM), so that nothing of it is copied and
   no page is faulted in twice. It must therefore touch nothing of the runtime: no stack, no thread-local storage, no
   managed code. It is this interpreter over an array of prepared system calls (ChildStep, 72 bytes):
     0 nr, 8..55 six arguments, 56 where to store the result (0: nowhere), 64 id (u32), 68 mode (u32).
   Modes: 0 report an error and exit, 1 ignore the result, 2 exit quietly unless the result is positive.
   Eight bytes before the array: the descriptor for reports (u32), unused (u32); before them the report: id, errno. */
        .intel_syntax noprefix
        .text
/* long spawn(struct clone_args *args, size_t size, struct step *steps): clone3's result, in the parent only. */
spawn:  mov     r8, rdx
        mov     eax, 435
        syscall
        test    rax, rax
        jz      child
        ret
child:  mov     rbx, r8
        mov     r12, r8
next:   mov     rax, [rbx]
        mov     rdi, [rbx+8]
        mov     rsi, [rbx+16]
        mov     rdx, [rbx+24]
        mov     r10, [rbx+32]
        mov     r8, [rbx+40]
        mov     r9, [rbx+48]
        syscall
        mov     ecx, [rbx+68]
        cmp     ecx, 1
        je      advance
        cmp     ecx, 2
        je      positive
        cmp     rax, -4095
        jae     fail
        mov     rcx, [rbx+56]
        test    rcx, rcx
        jz      advance
        mov     [rcx], rax
advance: add    rbx, 72
        jmp     next
positive: test  rax, rax
        jg      advance
        jmp     exit
fail:   neg     eax
        mov     [r12-12], eax
        mov     eax, [rbx+64]
        mov     [r12-16], eax
        mov     edi, [r12-8]
        lea     rsi, [r12-16]
        mov     edx, 8
        mov     eax, 1
        syscall
exit:   mov     edi, 1
        mov     eax, 231
        syscall
        jmp     exit
        .balign 16
/* void on_signal(int): adds one to the eventfd whose number stands in the second instruction. */
on_signal: mov  eax, 1
        mov     edi, 0x7fffffff
        lea     rsi, [rip+one]
        mov     edx, 8
        syscall
        ret
        .balign 8
one:    .quad   1
