/*
 * smp-torture CPUS ROUNDS: CPUS processors are online, and
 * - each runs the thread that is bound to it;
 * - a page that one remaps is seen at its new place by all others as soon as mmap returns (an interprocessor interrupt flushes their TLBs);
 * - a token goes from processor to processor by futex, each of which sleeps meanwhile (an interrupt wakes it);
 * - what all add to under one lock adds up.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX 32

static int cpus, rounds, failures;
static long checks;
static int *page;
static _Atomic int generation, token, seen[MAX], where[MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long sum;

static void check(int ok, const char *what, int cpu, int got)
{
	pthread_mutex_lock(&lock);
	checks++;
	if (!ok) {
		failures++;
		printf("processor %d: %s (%d)\n", cpu, what, got);
	}
	pthread_mutex_unlock(&lock);
}

static void futex_wait(_Atomic int *at, int value)
{
	syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic int *at)
{
	syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, MAX, NULL, NULL, 0);
}

static void map(int value)
{
	int *fresh = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*fresh = value;
	if (mremap(fresh, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page) != (void *)page)
		check(0, "mremap", 0, 0);
}

static void *run(void *argument)
{
	int cpu = (int)(long)argument, i, next;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	check(sched_setaffinity(0, sizeof(set), &set) == 0, "cannot be run on", cpu, 0);
	where[cpu] = sched_getcpu();
	check(where[cpu] == cpu, "the thread runs elsewhere", cpu, where[cpu]);

	/* Processor 0 remaps, the others have read the old page and read again. */
	for (i = 1; i <= rounds; i++) {
		if (cpu == 0) {
			map(i);
			generation = i;
			futex_wake(&generation);
			for (next = 1; next < cpus; next++)
				while (seen[next] < i)
					sched_yield();
		} else {
			while (generation < i)
				futex_wait(&generation, i - 1);
			next = *(volatile int *)page;
			check(next == i, "reads a page that is gone", cpu, next);
			seen[cpu] = i;
		}
		pthread_mutex_lock(&lock);
		sum += cpu + 1;
		pthread_mutex_unlock(&lock);
	}

	for (i = 0; i < rounds; i++) {
		int now, mine = i * cpus + cpu;

		while ((now = token) != mine)
			futex_wait(&token, now);
		token = mine + 1;
		futex_wake(&token);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t threads[MAX];
	long i;

	cpus = count > 1 ? atoi(arguments[1]) : 0;
	rounds = count > 2 ? atoi(arguments[2]) : 0;
	if (cpus < 1 || cpus > MAX || rounds < 1) {
		fprintf(stderr, "usage: smp-torture CPUS ROUNDS\n");
		return 2;
	}
	check(sysconf(_SC_NPROCESSORS_ONLN) == cpus, "online processors", 0, (int)sysconf(_SC_NPROCESSORS_ONLN));
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < cpus; i++)
		pthread_create(&threads[i], NULL, run, (void *)i);
	for (i = 0; i < cpus; i++)
		pthread_join(threads[i], NULL);
	check(token == rounds * cpus, "the token was lost", 0, token);
	check(sum == (long)rounds * cpus * (cpus + 1) / 2, "the sum is wrong", 0, (int)sum);
	printf("%d processors: %ld checks, %d failed\n", cpus, checks, failures);
	return failures != 0;
}
