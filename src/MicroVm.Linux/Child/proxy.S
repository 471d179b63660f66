/* The program of ProxyCode.cs, which holds these bytes and is compared with this file by a test: the process that stands for a
   container's init on the host. It is a whole ELF executable of one page that needs no library and no memory but its stack.

   It is started with every signal blocked but those of job control, with one descriptor, 0, a stream socket to the sandbox process:
     to the sandbox:   the number of each signal that it gets (u32).
     from the sandbox: two bytes, (0, status): exit; (1, signal): end by that signal; (2, 0): the descriptor that comes beside
                       them (SCM_RIGHTS) is a terminal, which becomes that of this process's session.
   The socket's end is the sandbox's: SIGKILL. */
        .intel_syntax noprefix
        .equ    IMAGE, 0x400000
        .text
base:   .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0
        .quad   0
        .short  2, 62
        .long   1
        .quad   IMAGE + (start - base), 64, 0
        .long   0
        .short  64, 56, 2, 0, 0, 0
/* PT_LOAD, read and execute; PT_GNU_STACK, not executable. */
        .long   1, 5
        .quad   0, IMAGE, IMAGE, end - base, end - base, 4096
        .long   0x6474e551, 6
        .quad   0, 0, 0, 0, 0, 16
/* All signals but SIGTSTP, SIGTTIN and SIGTTOU (20 to 22). */
mask:   .quad   ~(7 << 19)

/* On the stack: 0 struct pollfd[2], 16 struct signalfd_siginfo (128), 144 struct msghdr (56), 200 struct iovec (16),
   216 control data (24), 240 the two bytes. r12: the signalfd. */
start:  mov     rsi, [rsp + 8]          /* prctl(PR_SET_NAME, the last part of argv[0]) */
        mov     rdx, rsi
name:   mov     al, [rdx]
        inc     rdx
        cmp     al, '/'
        jne     part
        mov     rsi, rdx
part:   test    al, al
        jnz     name
        mov     eax, 157
        mov     edi, 15
        syscall
        sub     rsp, 256
        mov     eax, 289                /* signalfd4(-1, &mask, 8, SFD_CLOEXEC) */
        mov     edi, -1
        lea     rsi, [rip + mask]
        mov     edx, 8
        mov     r10d, 0x80000
        syscall
        test    eax, eax
        js      killed
        mov     r12d, eax
next:   mov     dword ptr [rsp], 0
        mov     dword ptr [rsp + 4], 1  /* POLLIN */
        mov     dword ptr [rsp + 8], r12d
        mov     dword ptr [rsp + 12], 1
        mov     eax, 7                  /* poll(fds, 2, -1) */
        mov     rdi, rsp
        mov     esi, 2
        mov     edx, -1
        syscall
        test    eax, eax
        js      next                    /* EINTR: it was stopped, and goes on. */
        cmp     word ptr [rsp + 14], 0
        jne     signal
        cmp     word ptr [rsp + 6], 0
        je      next

/* A message of the sandbox. */
        lea     rax, [rsp + 240]
        mov     [rsp + 200], rax
        mov     qword ptr [rsp + 208], 2
        xor     eax, eax
        mov     [rsp + 144], rax
        mov     [rsp + 152], rax
        lea     rcx, [rsp + 200]
        mov     [rsp + 160], rcx
        mov     qword ptr [rsp + 168], 1
        lea     rcx, [rsp + 216]
        mov     [rsp + 176], rcx
        mov     qword ptr [rsp + 184], 24
        mov     [rsp + 192], rax
        mov     eax, 47                 /* recvmsg(0, &message, MSG_CMSG_CLOEXEC) */
        xor     edi, edi
        lea     rsi, [rsp + 144]
        mov     edx, 0x40000000
        syscall
        cmp     eax, -4
        je      next
        cmp     eax, 2
        jne     killed
        mov     al, [rsp + 240]
        movzx   ebx, byte ptr [rsp + 241]
        cmp     al, 1
        jb      exit
        je      die
        cmp     qword ptr [rsp + 184], 20
        jb      next
        mov     ebx, [rsp + 232]
        mov     eax, 16                 /* ioctl(terminal, TIOCSCTTY, 0) */
        mov     edi, ebx
        mov     esi, 0x540e
        xor     edx, edx
        syscall
        mov     eax, 3                  /* close(terminal) */
        mov     edi, ebx
        syscall
        jmp     next

signal: xor     eax, eax                /* read(signalfd, &info, 128) */
        mov     edi, r12d
        lea     rsi, [rsp + 16]
        mov     edx, 128
        syscall
        cmp     eax, 128
        jne     next
        mov     eax, 44                 /* sendto(0, &info.ssi_signo, 4, MSG_NOSIGNAL, NULL, 0) */
        xor     edi, edi
        lea     rsi, [rsp + 16]
        mov     edx, 4
        mov     r10d, 0x4000
        xor     r8d, r8d
        xor     r9d, r9d
        syscall
        jmp     next

/* Ends by signal ebx, as the container's process did, without a core of its own. */
killed: mov     ebx, 9
die:    mov     eax, 157                /* prctl(PR_SET_DUMPABLE, 0) */
        mov     edi, 4
        xor     esi, esi
        syscall
        lea     ecx, [rbx - 1]
        mov     eax, 1
        shl     rax, cl
        mov     [rsp], rax
        mov     eax, 39                 /* getpid() */
        syscall
        mov     edi, eax
        mov     esi, ebx
        mov     eax, 62                 /* kill(pid, signal) */
        syscall
        mov     eax, 14                 /* rt_sigprocmask(SIG_UNBLOCK, &set, NULL, 8) */
        mov     edi, 1
        mov     rsi, rsp
        xor     edx, edx
        mov     r10d, 8
        syscall
/* The signal is one that ends nobody by default. */
        lea     ebx, [rbx + 128]
exit:   mov     edi, ebx
        mov     eax, 231                /* exit_group(status) */
        syscall
        ud2
end:
