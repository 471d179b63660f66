/* Runs a command and tells when it, or any thread or child of it, first called KVM_RUN.
 * usage: first-kvm-run [-k] COMMAND ARG...   prints "first-kvm-run NANOSECONDS" on standard error, from just before exec.
 * -k: kill the command there; without it the command goes on, and its exit status is passed on.
 * A seccomp filter stops at nothing else than that call, so the command runs at its own speed until then. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
    int kill_it = argc > 1 && !strcmp(argv[1], "-k"), status, seen = 0;
    char **command = argv + 1 + kill_it;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_RUN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    int go[2];

    if (!*command || pipe(go))
        return 2;
    pid_t child = fork();
    if (child == 0) {
        char c;
        close(go[1]);
        if (read(go[0], &c, 1) != 1)
            _exit(127);
        close(go[0]);
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
        execvp(command[0], command);
        perror(command[0]);
        _exit(127);
    }
    close(go[0]);
    if (ptrace(PTRACE_SEIZE, child, 0,
               PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL)) {
        perror("ptrace");
        return 2;
    }
    long long start = now();
    if (write(go[1], "x", 1) != 1)
        return 2;
    close(go[1]);
    for (;;) {
        pid_t p = waitpid(-1, &status, __WALL);
        if (p < 0)
            return 2;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (p == child)
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
            if (!seen)
                fprintf(stderr, "first-kvm-run %lld\n", now() - start);
            seen = 1;
            if (kill_it) {
                kill(child, SIGKILL);
                continue;
            }
            /* Nothing more is to be measured: let every thread go. Those still filtered get through by PTRACE_CONT. */
        }
        int event = status >> 16, sig = WSTOPSIG(status);
        ptrace(PTRACE_CONT, p, 0, event || sig == SIGTRAP ? 0 : sig);
    }
}
