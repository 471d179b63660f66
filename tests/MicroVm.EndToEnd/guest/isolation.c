/*
 * Runs in the guest, as any process may: everything that must not get past the edge of user mode. Arguments: further kernel
 * addresses to try, in hexadecimal. One line per failure and one at the end; exits with 1 when a check failed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static int failures, checks;
static uint64_t argument;

static void check(const char *name, uint64_t at, int ok, int status)
{
	checks++;
	if (!ok) {
		printf("%-44s %016lx FAILED (status %x)\n", name, at, status);
		fflush(stdout);
		failures++;
	}
}

/* The child must die of SIGSEGV, SIGILL, SIGBUS or SIGTRAP. */
static void dies(const char *name, uint64_t at, void (*what)(void))
{
	int status;
	pid_t pid;

	argument = at;
	pid = fork();
	if (!pid) {
		alarm(20);
		what();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	check(name, at, WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGILL ||
	      WTERMSIG(status) == SIGBUS || WTERMSIG(status) == SIGTRAP), status);
}

/* The child ends well: what it tried had no effect, and it could tell. */
static void harmless(const char *name, uint64_t at, void (*what)(void))
{
	int status;
	pid_t pid;

	argument = at;
	pid = fork();
	if (!pid) {
		alarm(20);
		what();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	check(name, at, status == 0, status);
}

static void rd(void) { *(volatile uint64_t *)argument; }
static void wr(void) { *(volatile uint64_t *)argument = 0; }
static void ex(void) { ((void (*)(void))argument)(); }
/* A jump with the registers that the monitor's operations take. */
static void ex_r11(void)
{
	asm volatile("movq %0, %%r11; movl $0x174, %%ecx; xorl %%eax, %%eax; xorl %%edx, %%edx; jmp *%1"
		     : : "r" (argument), "r" (argument) : "r11", "rcx", "rax", "rdx");
}

#define OP(name, code) static void op_##name(void) \
	{ asm volatile(code : : "a" (0L), "c" (0x174L), "d" (0x80L) : "memory", "rbx"); }
OP(cli, "cli") OP(sti, "sti") OP(hlt, "hlt") OP(in, "inb %%dx, %%al") OP(out, "outb %%al, %%dx") OP(insb, "cld; lea -64(%%rsp), %%rdi; insb")
OP(rdmsr, "rdmsr") OP(wrmsr, "wrmsr") OP(cr0, "mov %%cr0, %%rax") OP(wcr3, "mov %%rax, %%cr3") OP(wcr4, "mov %%rax, %%cr4")
OP(cr3, "mov %%cr3, %%rax") OP(dr7, "mov %%db7, %%rax") OP(wdr7, "mov %%rax, %%db7") OP(swapgs, "swapgs") OP(invlpg, "invlpg (%%rsp)")
OP(lidt, "lidt -64(%%rsp)") OP(lgdt, "lgdt -64(%%rsp)") OP(ltr, "movl $0x40, %%eax; ltr %%ax") OP(lldt, "movl $0x40, %%eax; lldt %%ax")
OP(clts, "clts") OP(wbinvd, "wbinvd") OP(xsetbv, "xorl %%ecx, %%ecx; xorl %%edx, %%edx; movl $1, %%eax; xsetbv")
OP(sysret, "sysretq") OP(lmsw, "lmsw %%ax") OP(rdpmc, "rdpmc") OP(monitor, "xorl %%ecx, %%ecx; xorl %%edx, %%edx; leaq -64(%%rsp), %%rax; monitor")
OP(int20, "int $0x20") OP(int80, "int $0x80") OP(inted, "int $0xec") OP(int0d, "int $13") OP(int0e, "int $14") OP(int08, "int $8") OP(int02, "int $2") OP(intff, "int $0xff")
OP(ss0, "movl $0x18, %%eax; movl %%eax, %%ss") OP(ljmp10, "pushq $0x10; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:")
OP(ljmp08, "pushq $0x08; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:") OP(ljmptss, "pushq $0x43; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:")
OP(iret10, "movq %%rsp, %%rbx; pushq $0x18; pushq %%rbx; pushfq; pushq $0x10; leaq 1f(%%rip), %%rax; pushq %%rax; iretq; 1:")
OP(iretkernel, "movq %%rsp, %%rbx; pushq $0x2b; pushq %%rbx; pushfq; pushq $0x33; pushq $-4096; iretq")

static const struct { const char *name; void (*what)(void); } ops[] = {
#define E(n) { #n, op_##n },
	E(cli) E(sti) E(hlt) E(in) E(out) E(insb) E(rdmsr) E(wrmsr) E(cr0) E(wcr3) E(wcr4) E(cr3) E(dr7) E(wdr7) E(swapgs) E(invlpg)
	E(lidt) E(lgdt) E(ltr) E(lldt) E(clts) E(wbinvd) E(xsetbv) E(sysret) E(lmsw) E(rdpmc) E(monitor) E(int20) E(int80) E(inted) E(int0d)
	E(int0e) E(int08) E(int02) E(intff) E(ss0) E(ljmp10) E(ljmp08) E(ljmptss) E(iret10) E(iretkernel)
};

/* RFLAGS with IOPL 3, IF clear, NT, VM: POPF and IRET take none of them. */
static void popf_iopl(void)
{
	uint64_t flags;

	asm volatile("pushfq; orq $0x3000, (%%rsp); andq $~0x200, (%%rsp); popfq; pushfq; popq %0" : "=r" (flags) : : "memory", "cc");
	if ((flags & 0x3000) || !(flags & 0x200))
		_exit(1);
	syscall(SYS_getppid);
	asm volatile("pushfq; popq %0" : "=r" (flags));
	if ((flags & 0x3000) || !(flags & 0x200))
		_exit(2);
}

static void popf_iopl_in(void) { popf_iopl(); op_in(); }

static greg_t set_flags, set_ip, set_csgsfs;
static int which;

static void handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	if (which == 0)
		u->uc_mcontext.gregs[REG_EFL] |= set_flags;
	else if (which == 1)
		u->uc_mcontext.gregs[REG_RIP] = set_ip;
	else if (which == 2)
		u->uc_mcontext.gregs[REG_CSGSFS] = set_csgsfs;
	else
		u->uc_mcontext.gregs[REG_RSP] = set_ip;
}

static void returns(void)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESETHAND };
	uint64_t flags;

	sigaction(SIGUSR1, &action, NULL);
	syscall(SYS_kill, getpid(), SIGUSR1);
	asm volatile("pushfq; popq %0" : "=r" (flags));
	if (flags & 0x3000 || !(flags & 0x200) || flags & 0x1a0000)
		_exit(3);
	if (which == 0)
		op_in();
}

static void sigreturn_flags(void) { which = 0; set_flags = argument; returns(); }
static void sigreturn_ip(void) { which = 1; set_ip = argument; returns(); _exit(0); }
static void sigreturn_selectors(void) { which = 2; set_csgsfs = argument; returns(); }

/* A syscall whose RSP is the kernel's, and one with a kernel address to write to. */
static void kernel_rsp(void)
{
	long result;

	asm volatile("movq %%rsp, %%rbx; movq %1, %%rsp; syscall; movq %%rbx, %%rsp"
		     : "=a" (result) : "r" (argument), "a" (SYS_getppid) : "rcx", "r11", "rbx", "memory");
	if (result <= 0)
		_exit(1);
}

static void kernel_buffer(void)
{
	int fds[2];

	if (pipe(fds) || write(fds[1], "12345678", 8) != 8)
		_exit(1);
	if (syscall(SYS_read, fds[0], argument, 8) != -1 || errno != EFAULT)
		_exit(2);
	if (syscall(SYS_write, fds[1], argument, 8) != -1 || errno != EFAULT)
		_exit(3);
}

static void traced(void)
{
	struct user_regs_struct regs;
	int status;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		op_in();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &regs);
	regs.eflags |= 0x3000;
	regs.eflags &= ~0x200UL;
	ptrace(PTRACE_SETREGS, pid, 0, &regs);
	regs.eflags |= 0x200;
	regs.cs = 0x10;
	ptrace(PTRACE_SETREGS, pid, 0, &regs);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &status, 0);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSEGV)
		_exit(1);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

static void traced_ip(void)
{
	struct user_regs_struct regs;
	int status;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &regs);
	regs.rip = argument;
	ptrace(PTRACE_SETREGS, pid, 0, &regs);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &status, 0);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSEGV)
		_exit(1);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

int main(int count, char **arguments)
{
	static uint64_t addresses[256] = {
		0xffffffff81000000, 0xffffffff82000000, 0xffff888000000000, 0xffff888000100000, 0xffff888001000000,
		0xffffc90000000000, 0xffffea0000000000, 0xfffffe0000000000, 0xfffffe0000001000, 0xffffffffff5fc000,
		0xffffffffff5fd000, 0xffff800000000000, 0xfffffffffffff000, 0x800000000000, 0x8000000000000000, 0x7ffffffff000,
	};
	unsigned n = 16, i;

	while (--count > 0 && n < 256)
		addresses[n++] = strtoull(*++arguments, NULL, 16);

	for (i = 0; i < n; i++) {
		dies("read", addresses[i], rd);
		dies("write", addresses[i], wr);
		dies("execute", addresses[i], ex);
		dies("execute with a call's registers", addresses[i], ex_r11);
		dies("sigreturn to", addresses[i], sigreturn_ip);
		harmless("traced, RIP set", addresses[i], traced_ip);
		harmless("system call with RSP", addresses[i], kernel_rsp);
		harmless("read and write with buffer", addresses[i], kernel_buffer);
	}
	for (i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		dies(ops[i].name, 0, ops[i].what);
	harmless("popf with IOPL 3", 0, popf_iopl);
	dies("in after popf with IOPL 3", 0, popf_iopl_in);
	dies("sigreturn with IOPL 3", 0x3000, sigreturn_flags);
	dies("sigreturn with VM, VIF, VIP", 0x3000 | 0x20000 | 0x180000, sigreturn_flags);
	dies("sigreturn with NT", 0x3000 | 0x4000, sigreturn_flags);
	static const uint16_t selectors[] = { 0, 3, 0x10, 0x13, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x38, 0x40, 0x43, 0x7b, 0xffff };
	for (i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++) {
		int status;
		pid_t pid = fork();
		if (!pid) { argument = selectors[i] | 0x2bL << 48; sigreturn_selectors(); _exit(0); }
		waitpid(pid, &status, 0);
		check("sigreturn with CS", selectors[i], WIFSIGNALED(status) ? WTERMSIG(status) != SIGALRM : status == 0, status);
		pid = fork();
		if (!pid) { argument = 0x33L | (uint64_t)selectors[i] << 48; sigreturn_selectors(); _exit(0); }
		waitpid(pid, &status, 0);
		check("sigreturn with SS", selectors[i], WIFSIGNALED(status) ? WTERMSIG(status) != SIGALRM : status == 0, status);
	}
	harmless("traced, IOPL 3 and CS set", 0, traced);
	printf("isolation: %d checks, %d failed\n", checks, failures);
	return failures != 0;
}
