/*
 * Runs in the guest: every way into and out of a system call that the fault path of patch 0001
 * must get right. Static, no arguments; prints one line per check, exits with the number of failures.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

static void check(const char *name, int ok)
{
	printf("%-40s %s\n", name, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Registers and flags after a call are what the ABI says: only rax, rcx and r11 change. */
static void registers_survive(void)
{
	unsigned long ax = SYS_getpid, bx = 0x1111, cx, dx = 0x2222, si = 0x3333, di = 0x4444, flags;
	register unsigned long r8 asm("r8") = 8, r9 asm("r9") = 9, r10 asm("r10") = 10,
		r12 asm("r12") = 12, r13 asm("r13") = 13, r14 asm("r14") = 14, r15 asm("r15") = 15;
	register unsigned long r11 asm("r11");
	asm volatile("stc; std; syscall; pushfq; popq %[f]; cld"
		: "+a"(ax), "+b"(bx), "=c"(cx), "+d"(dx), "+S"(si), "+D"(di), "+r"(r8), "+r"(r9), "+r"(r10),
		  "=r"(r11), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15), [f] "=m"(flags)
		:: "memory", "cc");
	unsigned long n8 = r8, n9 = r9, n10 = r10, n11 = r11;	/* before anything else is called */
	check("registers", ax == (unsigned long)getpid() && bx == 0x1111 && dx == 0x2222 && si == 0x3333 && di == 0x4444 &&
	      n8 == 8 && n9 == 9 && n10 == 10 && r12 == 12 && r13 == 13 && r14 == 14 && r15 == 15);
	check("flags (CF, DF, IF kept)", (flags & 0x601) == 0x601 && (flags & 0x3000) == 0);
	check("rcx is the return address, r11 the flags", cx != 0 && (n11 & 0x601) == 0x601);
}

static void bad_numbers(void)
{
	check("call 100000 is ENOSYS", syscall(100000) == -1 && errno == ENOSYS);
	check("call -1 is ENOSYS", syscall(-1L) == -1 && errno == ENOSYS);
}

static sigjmp_buf jump;
static volatile int caught;
static void on_jump(int s) { (void)s; siglongjmp(jump, 1); }
static void on_count(int s) { (void)s; caught++; }

/* A program that jumps to the kernel's entry address gets SIGSEGV, not a system call. */
static void jump_to_entry(unsigned long address)
{
	struct sigaction a = { .sa_handler = on_jump, .sa_flags = SA_NODEFER };
	sigaction(SIGSEGV, &a, 0);
	if (!sigsetjmp(jump, 1)) {
		asm volatile("jmp *%0" :: "r"(address), "a"(SYS_getpid), "c"(address), "d"(0) : "r11", "memory");
		check("jump to the entry point", 0);
	} else
		check("jump to the entry point is SIGSEGV", 1);
	signal(SIGSEGV, SIG_DFL);
}

static void restart(void)
{
	int p[2];
	char c;
	struct sigaction a = { .sa_handler = on_count, .sa_flags = SA_RESTART };
	struct itimerval t = { { 0, 300000 }, { 0, 200000 } }, off = { 0 };	/* repeats: a slow guest may not yet be in read() */

	pipe(p);
	sigaction(SIGALRM, &a, 0);
	caught = 0;
	if (!fork()) { sleep(1); write(p[1], "x", 1); _exit(0); }
	setitimer(ITIMER_REAL, &t, 0);
	check("SA_RESTART: read goes on", read(p[0], &c, 1) == 1 && c == 'x' && caught >= 1);
	setitimer(ITIMER_REAL, &off, 0);
	wait(0);
	a.sa_flags = 0;
	sigaction(SIGALRM, &a, 0);
	setitimer(ITIMER_REAL, &t, 0);
	check("without it: EINTR", read(p[0], &c, 1) == -1 && errno == EINTR);
	setitimer(ITIMER_REAL, &off, 0);
	/* stopped and continued: nanosleep goes on through restart_syscall */
	double start = now();
	int child = fork();
	if (!child) {
		signal(SIGALRM, SIG_IGN);
		struct timespec ts = { 1, 0 };
		_exit(nanosleep(&ts, 0) == 0 ? 7 : 8);
	}
	usleep(300000);
	kill(child, SIGSTOP);
	usleep(100000);
	kill(child, SIGCONT);
	int status;
	waitpid(child, &status, 0);
	check("restart_syscall after SIGSTOP/SIGCONT", WIFEXITED(status) && WEXITSTATUS(status) == 7 && now() - start > 0.9);
}

static void alternate_stack(void)
{
	static char stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof stack };
	struct sigaction a = { .sa_handler = on_count, .sa_flags = SA_ONSTACK };
	sigaltstack(&ss, 0);
	sigaction(SIGUSR1, &a, 0);
	caught = 0;
	for (int i = 0; i < 20; i++) raise(SIGUSR1);
	check("sigaltstack and sigreturn, 20 times", caught == 20);
}

static void processes(char *self)
{
	int status, ok = 1;
	for (int i = 0; i < 10; i++) {
		int pid = fork();
		if (!pid) _exit(i);
		ok &= waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == i;
	}
	check("fork and exit, 10 times", ok);
	int pid = vfork();
	if (!pid) { execl(self, self, "exec-child", "a b", (char *)0); _exit(1); }
	waitpid(pid, &status, 0);
	check("vfork and execve", WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static int counter, word;
static void *thread(void *arg)
{
	for (int i = 0; i < 50; i++) {
		__atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &word, FUTEX_WAKE, 1, 0, 0, 0);
		if (i % 10 == 0) sched_yield();
	}
	return arg;
}

static void threads(void)
{
	pthread_t t[4];
	long ok = 1;
	for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, thread, (void *)i);
	for (long i = 0; i < 4; i++) { void *r; pthread_join(t[i], &r); ok &= (long)r == i; }
	check("threads and futex", ok && counter == 200);
}

static void traced(void)
{
	int status, pid = fork();
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		long r;
		asm volatile("syscall" : "=a"(r) : "a"(SYS_getppid) : "rcx", "r11", "memory");
		/* stepped over: the call and what follows */
		asm volatile(".globl step_here\nstep_here: nop; syscall; nop; nop" : "=a"(r) : "a"(SYS_getpid) : "rcx", "r11", "memory");
		_exit(r == getpid() ? 3 : 4);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	struct user_regs_struct r;
	int entry = 0, leave = 0;
	for (int i = 0; i < 20 && !leave; i++) {
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
		waitpid(pid, &status, 0);
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		if (r.orig_rax != SYS_getppid) continue;
		if (!entry) entry = (long)r.rax == -ENOSYS;
		else leave = (long)r.rax == getpid();
	}
	check("ptrace: stop at entry and exit", entry && leave);
	extern char step_here[];
	int at_nop = 0, after_call = 0, steps;
	unsigned long previous = 0;
	for (steps = 0; steps < 60 && !after_call; steps++) {
		ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
		waitpid(pid, &status, 0);
		if (!WIFSTOPPED(status)) break;
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		if (r.rip == (unsigned long)step_here + 1) at_nop = 1;
		if (r.rip == (unsigned long)step_here + 3 && at_nop && previous == (unsigned long)step_here + 1)
			after_call = (long)r.rax == pid;
		previous = r.rip;
	}
	check("ptrace: single step over a call", at_nop && after_call);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &status, 0);
	check("ptrace: traced child goes on", WIFEXITED(status) && WEXITSTATUS(status) == 3);

	/* the tracer changes the call number */
	pid = fork();
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(syscall(SYS_getppid) == -1 && errno == ENOSYS ? 5 : 6);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	for (int i = 0; i < 20; i++) {
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
		waitpid(pid, &status, 0);
		if (!WIFSTOPPED(status)) break;
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		if (r.orig_rax == SYS_getppid) { r.orig_rax = -1; ptrace(PTRACE_SETREGS, pid, 0, &r); break; }
	}
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &status, 0);
	check("ptrace: call skipped by the tracer", WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

static void filtered(void)
{
	int status, pid = fork();
	if (!pid) {
		struct sock_filter f[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sync, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		struct sock_fprog p = { sizeof f / sizeof *f, f };
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p)) _exit(1);
		if (syscall(SYS_getppid) != -1 || errno != 77) _exit(2);
		syscall(SYS_sync);
		_exit(3);
	}
	waitpid(pid, &status, 0);
	check("seccomp: errno and kill", WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static void traps(void)
{
	struct sigaction a = { .sa_handler = on_count };
	sigaction(SIGTRAP, &a, 0);
	caught = 0;
	asm volatile("int3");
	check("int3 is SIGTRAP", caught == 1);
	signal(SIGTRAP, SIG_DFL);
	a.sa_handler = on_jump; a.sa_flags = SA_NODEFER;
	sigaction(SIGILL, &a, 0);
	sigaction(SIGFPE, &a, 0);
	sigaction(SIGSEGV, &a, 0);
	if (!sigsetjmp(jump, 1)) { asm volatile("ud2"); check("ud2", 0); } else check("ud2 is SIGILL", 1);
	if (!sigsetjmp(jump, 1)) { asm volatile("xor %%ecx,%%ecx; mov $1,%%eax; cltd; idivl %%ecx" ::: "eax", "ecx", "edx"); check("idiv", 0); } else check("division by zero is SIGFPE", 1);
	if (!sigsetjmp(jump, 1)) { asm volatile("hlt"); check("hlt", 0); } else check("hlt is SIGSEGV", 1);
	if (!sigsetjmp(jump, 1)) { *(volatile char *)0xffffffff81000000 = 1; check("kernel write", 0); } else check("write to the kernel is SIGSEGV", 1);
	long (*vtime)(long *) = (void *)0xffffffffff600400;
	if (!sigsetjmp(jump, 1)) { long t = vtime(0); check("vsyscall time()", labs(t - time(0)) < 3); } else check("vsyscall time()", 0);
	signal(SIGSEGV, SIG_DFL);
}

static void speed(void)
{
	double t = now();
	for (int i = 0; i < 200; i++) syscall(SYS_getppid);
	t = (now() - t) / 200;
	double f = now();
	volatile char *p = mmap(0, 50 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 50; i++) p[i * 4096] = 1;
	f = (now() - f) / 50;
	double k = now();
	for (int i = 0; i < 3; i++) { int pid = fork(); if (!pid) _exit(0); waitpid(pid, 0, 0); }
	k = (now() - k) / 3;
	printf("getppid %.1f us, anonymous page %.1f us, fork+exit+wait %.2f ms\n", t * 1e6, f * 1e6, k * 1e3);
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "exec-child")) return strcmp(argv[2], "a b") ? 1 : 42;
	registers_survive();
	bad_numbers();
	if (argc > 1) jump_to_entry(strtoul(argv[1], 0, 16));
	alternate_stack();
	restart();
	processes(argv[0]);
	threads();
	traced();
	filtered();
	traps();
	speed();
	printf("syscall-path: %d failures\n", failures);
	return failures;
}
