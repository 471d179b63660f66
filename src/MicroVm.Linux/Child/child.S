/* The code of ChildCode.cs, which holds these bytes and is compared with this file by a test. It is used in two ways.

   As code in the caller's memory (spawn). Between clone and execve the child shares its parent's memory (CLONE_VM), so that
   nothing of it is copied and no page is faulted in twice. It must therefore touch nothing of the runtime: no stack, no
   thread-local storage, no managed code. It is an interpreter over an array of prepared system calls (ChildStep, 72 bytes):
     0 nr, 8..55 six arguments, 56 where to store the result (0: nowhere), 64 id (u32), 68 mode (u32).
   Modes: 0 report an error and exit, 1 ignore the result, 2 exit quietly unless the result is positive, 3 clone3 (the
   child goes on, the parent reports that and waits to be killed), 4 getcwd, which is to answer an absolute path.
   Eight bytes before the array: the descriptor for reports (u32), unused (u32); before them the failure: id, errno.

   As a program (start): a whole ELF executable, which maps the memory file at descriptor 4 at a fixed address and carries out
   the array in it. A process that execs it has nothing of its parent's memory left, and none of its secrets. */
        .intel_syntax noprefix
        .equ    IMAGE, 0x400000
        .equ    PRIVATE, 0x500000
        .equ    PROGRAM, 0x10000000
        .equ    CAPACITY, 0x800000
        .text
base:   .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0
        .quad   0
        .short  2, 62
        .long   1
        .quad   IMAGE + (start - base), 64, 0
        .long   0
        .short  64, 56, 3, 0, 0, 0
/* PT_LOAD, read and execute; the same bytes again, writable; PT_GNU_STACK, not executable. */
        .long   1, 5
        .quad   0, IMAGE, IMAGE, end - base, end - base, 4096
        .long   1, 6
        .quad   0, PRIVATE, PRIVATE, end - base, end - base, 4096
        .long   0x6474e551, 6
        .quad   0, 0, 0, 0, 0, 16
/* The clone's process id, in the copy at PRIVATE: CLONE_PARENT_SETTID writes it into the parent's memory only. */
forked_pid: .quad 0
/* What the parent of a clone reports: StepId.Forked. */
forked_report: .long 1000, 0
        .balign 16
/* long spawn(struct clone_args *args, size_t size, struct step *steps): clone3's result, in the parent only. */
spawn:  mov     r8, rdx
        mov     eax, 435
        syscall
        test    rax, rax
        jz      child
        ret
start:  mov     eax, 9
        mov     edi, PROGRAM
        mov     esi, CAPACITY
        mov     edx, 3
        mov     r10d, 0x100001
        mov     r8d, 4
        xor     r9d, r9d
        syscall
        mov     r8d, PROGRAM + 16
        cmp     rax, -4095
        jae     exit
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
        cmp     ecx, 3
        je      forked
        cmp     ecx, 4
        je      directory
        mov     rcx, [rbx+56]
        test    rcx, rcx
        jz      advance
        mov     [rcx], rax
advance: add    rbx, 72
        jmp     next
positive: test  rax, rax
        jg      advance
        jmp     exit
directory: cmp  byte ptr [rdi], '/'
        je      advance
        mov     eax, -2
        jmp     fail
forked: test    rax, rax
        jz      advance
        mov     edi, 3
        lea     rsi, [rip+forked_report]
        mov     edx, 8
        mov     eax, 1
        syscall
hold:   mov     eax, 34
        syscall
        jmp     hold
fail:   neg     eax
        mov     ecx, [rbx+64]
        mov     [r12-16], ecx
        mov     [r12-12], eax
        mov     edi, [r12-8]
        lea     rsi, [r12-16]
        mov     edx, 8
        mov     eax, 1
        syscall
exit:   mov     edi, 1
        mov     eax, 231
        syscall
/* A seccomp filter may refuse that, too. */
        ud2
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
end:
