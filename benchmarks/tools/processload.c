// First touches of memory, processes and system calls, timed: lines "OPERATION NANOSECONDS", each the time of one on average: touch (2,000
// pages in a row, upwards), down (downwards), apart (one page of 64 KiB), fork (exit, wait), exec (fork, exec of /bin/sh -c :, wait), getppid, pipe (a
// byte to another process and back).
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { page = 4096, pages = 2000 };

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void say(const char *operation, long long start, long count)
{
	printf("%s %lld\n", operation, (now() - start) / count);
	fflush(stdout);
}

static void touch(const char *name, long first, long step, long count)
{
	size_t length = (size_t)pages * 16 * page;
	char *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		exit(1);
	long long start = now();
	for (long i = 0; i < count; i++)
		p[(first + i * step) * page] = 1;
	say(name, start, count);
	munmap(p, length);
}

static void processes(const char *name, int exec, int count)
{
	long long start = now();
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			if (exec)
				execl("/bin/sh", "sh", "-c", ":", (char *)NULL);
			_exit(exec);
		}
		int status;
		if (waitpid(pid, &status, 0) != pid || status != 0)
			exit(1);
	}
	say(name, start, count);
}

static void pipes(int count)
{
	int there[2], back[2];
	char c = 0;
	if (pipe(there) || pipe(back))
		exit(1);
	if (fork() == 0) {
		close(there[1]);
		while (read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1)
			;
		_exit(0);
	}
	long long start = now();
	for (int i = 0; i < count; i++)
		if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
			exit(1);
	say("pipe", start, count);
}

int main(void)
{
	touch("touch", 0, 1, pages);
	touch("down", pages - 1, -1, pages);
	touch("apart", 0, 16, pages);
	processes("fork", 0, 50);
	processes("exec", 1, 50);
	long long start = now();
	for (int i = 0; i < 5000; i++)
		syscall(SYS_getppid);
	say("getppid", start, 5000);
	pipes(1000);
	return 0;
}
