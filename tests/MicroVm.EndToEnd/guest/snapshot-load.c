/*
 * snapshot-load: the /init of a VM that is saved and restored again and again. Each worker does work whose result does not depend on
 * time, and the results are written to the serial port at the end:
 * - vector: sums in all vector registers, which stay in them for long (AVX where the processor has it);
 * - timers: periodic timers by signal and by descriptor, none lost, and a monotonic clock that never goes back;
 * - sockets: a token that goes round between processes by a socket pair and a pipe;
 * - files: names that come and go, and a file that has none any more, written and read again;
 * - disk: sectors of /dev/vda, written past the cache and read again;
 * - console: numbered lines through /dev/hvc0, of which the test must find each once;
 * - threads: two threads, on a processor each, that wake each other by futex and add up.
 * The kernel's command line gives scale=N, the amount of work.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 16, SECTOR = 512, SECTORS = 64 };

static int scale = 1;
static int processors;

/* Results, where init sees them. */
static struct { char name[16]; uint64_t value; char problem[64]; } *results;
static int self;

static void fail(const char *what)
{
	snprintf(results[self].problem, sizeof results[self].problem, "%s (%s)", what, strerrorname_np(errno));
	_exit(1);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ull;
	return h ^ (h >> 29);
}

typedef uint64_t v4 __attribute__((vector_size(32)));

#define SUMS(v) \
	v a[8], k[8]; \
	for (int i = 0; i < 8; i++) \
		for (unsigned j = 0; j < sizeof(v) / 8; j++) { \
			a[i][j] = mix(i + 1, j + 1); \
			k[i][j] = mix(j + 11, i + 7) | 1; \
		} \
	for (long n = 0; n < rounds; n++) { \
		a[0] += k[0] ^ a[7]; a[1] += k[1] ^ a[0]; a[2] += k[2] ^ a[1]; a[3] += k[3] ^ a[2]; \
		a[4] += k[4] ^ a[3]; a[5] += k[5] ^ a[4]; a[6] += k[6] ^ a[5]; a[7] += k[7] ^ a[6]; \
	} \
	uint64_t h = 0; \
	for (int i = 0; i < 8; i++) \
		for (unsigned j = 0; j < sizeof(v) / 8; j++) \
			h = mix(h, a[i][j]); \
	return h

typedef uint64_t v2 __attribute__((vector_size(16)));

__attribute__((target("avx2"), noinline)) static uint64_t sums_avx(long rounds) { SUMS(v4); }
__attribute__((noinline)) static uint64_t sums_sse(long rounds) { SUMS(v2); }

static uint64_t vector(void)
{
	volatile long double x87 = 1;
	uint64_t h = 0;
	for (int i = 0; i < 8; i++) {
		h = mix(h, __builtin_cpu_supports("avx2") ? sums_avx(250000L * scale) : sums_sse(250000L * scale));
		x87 = x87 * 1.25L + i;
	}
	return mix(h, (uint64_t)(x87 * 1000));
}

static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
	(void)signal;
	alarms++;
}

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t timers(void)
{
	struct itimerval every = { { 0, 7000 }, { 0, 7000 } };
	struct itimerspec period = { { 0, 5000000 }, { 0, 5000000 } };
	uint64_t wanted = 40ull * scale, seen = 0, last = nanoseconds(CLOCK_MONOTONIC), n;
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);

	signal(SIGALRM, on_alarm);
	if (fd < 0 || timerfd_settime(fd, 0, &period, NULL) < 0 || setitimer(ITIMER_REAL, &every, NULL) < 0)
		fail("timers");
	while (seen < wanted || alarms < (int)wanted / 2) {
		if (read(fd, &n, sizeof n) == sizeof n)
			seen += n;
		else if (errno != EINTR)
			fail("timerfd");
		struct timespec nap = { 0, 300000 };
		nanosleep(&nap, NULL);
		uint64_t now = nanoseconds(CLOCK_MONOTONIC);
		if (now < last)
			fail("the clock went back");
		last = now;
	}
	return wanted;
}

static uint64_t sockets(void)
{
	int pair[2], back[2];
	long rounds = 1500L * scale;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || pipe(back) < 0)
		fail("socketpair");
	pid_t child = fork();
	if (child == 0) {
		uint64_t token;
		while (read(pair[1], &token, sizeof token) == sizeof token && token) {
			token = mix(token, 5);
			if (write(back[1], &token, sizeof token) != sizeof token)
				_exit(1);
		}
		_exit(0);
	}
	uint64_t token = 1;
	for (long i = 0; i < rounds; i++) {
		if (write(pair[0], &token, sizeof token) != sizeof token || read(back[0], &token, sizeof token) != sizeof token)
			fail("token");
		token |= 1;
	}
	uint64_t end = 0;
	int status;
	if (write(pair[0], &end, sizeof end) != sizeof end || waitpid(child, &status, 0) != child || status)
		fail("the other process");
	return token;
}

static uint64_t files(void)
{
	static char block[4096];
	uint64_t h = 0;
	mkdir("/work", 0700);
	int gone = open("/work/gone", O_RDWR | O_CREAT | O_EXCL, 0600);
	if (gone < 0 || unlink("/work/gone") < 0)
		fail("a file without a name");
	for (int i = 0; i < 120 * scale; i++) {
		char name[32], other[32];
		memset(block, i, sizeof block);
		int at = i % 32;
		if (pwrite(gone, block, sizeof block, at * (off_t)sizeof block) != sizeof block)
			fail("write");
		snprintf(name, sizeof name, "/work/%d", i);
		snprintf(other, sizeof other, "/work/r%d", i);
		int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (fd < 0 || write(fd, &i, sizeof i) != sizeof i || close(fd) < 0 || rename(name, other) < 0)
			fail("a name");
		if (i >= 8) {
			int value = -1;
			snprintf(other, sizeof other, "/work/r%d", i - 8);
			fd = open(other, O_RDONLY);
			if (fd < 0 || read(fd, &value, sizeof value) != sizeof value || value != i - 8 || close(fd) < 0 || unlink(other) < 0)
				fail("an older name");
		}
		if (pread(gone, block, sizeof block, (i / 2 % 32) * (off_t)sizeof block) == sizeof block)
			h = mix(h, (unsigned char)block[i]);
		sched_yield();
	}
	struct stat s;
	return fstat(gone, &s) < 0 || s.st_nlink != 0 ? (fail("the file has a name again"), 0) : mix(h, s.st_size);
}

static uint64_t disk(void)
{
	char *buffer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t h = 0;
	int fd = open("/dev/vda", O_RDWR | O_DIRECT);
	if (fd < 0)
		fail("/dev/vda");
	for (int i = 0; i < 100 * scale; i++) {
		off_t at = (i * 7 % SECTORS) * SECTOR;
		memset(buffer, i + 1, SECTOR);
		if (pwrite(fd, buffer, SECTOR, at) != SECTOR)
			fail("write of a sector");
		memset(buffer, 0, SECTOR);
		if (pread(fd, buffer, SECTOR, at) != SECTOR)
			fail("read of a sector");
		for (int j = 0; j < SECTOR; j++)
			if (buffer[j] != (char)(i + 1))
				fail("a sector that differs");
		h = mix(h, buffer[i % SECTOR]);
		if (i % 16 == 0 && fsync(fd) < 0)
			fail("fsync");
	}
	return h;
}

static uint64_t console(void)
{
	int fd = open("/dev/hvc0", O_WRONLY | O_NOCTTY);
	if (fd < 0)
		fail("/dev/hvc0");
	for (int i = 0; i < 60 * scale; i++) {
		if (dprintf(fd, "line %d\n", i) < 0)
			fail("line");
		struct timespec nap = { 0, 2000000 };
		nanosleep(&nap, NULL);
	}
	return 60 * scale;
}

static _Atomic int turn;
static uint64_t sum;

static void *adder(void *argument)
{
	int own = (int)(intptr_t)argument;
	if (processors > 1) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(own, &set);
		if (sched_setaffinity(0, sizeof set, &set) < 0)
			fail("sched_setaffinity");
	}
	for (int i = 0; i < 1500 * scale; i++) {
		int now;
		while ((now = atomic_load(&turn)) % 2 != own)
			syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
		sum = mix(sum, now);
		atomic_store(&turn, now + 1);
		syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	return NULL;
}

static uint64_t threads(void)
{
	pthread_t other;
	if (pthread_create(&other, NULL, adder, (void *)1))
		fail("pthread_create");
	adder((void *)0);
	pthread_join(other, NULL);
	return sum;
}

static const struct { const char *name; uint64_t (*work)(void); } workers[] = {
	{ "vector-1", vector }, { "vector-2", vector }, { "timers", timers }, { "sockets", sockets }, { "files", files },
	{ "disk", disk }, { "console", console }, { "threads", threads },
};

int main(void)
{
	int count = sizeof workers / sizeof *workers;
	mkdir("/dev", 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) < 0 && errno != EBUSY)
		return 1;
	int serial = open("/dev/ttyS0", O_WRONLY | O_NOCTTY);
	if (getenv("scale"))
		scale = atoi(getenv("scale"));
	processors = sysconf(_SC_NPROCESSORS_ONLN);
	results = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	dprintf(serial, "begin\n");
	pid_t ids[MAX];
	for (int i = 0; i < count; i++) {
		ids[i] = fork();
		if (ids[i] == 0) {
			self = i;
			results[i].value = workers[i].work();
			_exit(0);
		}
	}
	for (int i = 0; i < count; i++) {
		int status = -1;
		waitpid(ids[i], &status, 0);
		dprintf(serial, "%s %016llx %s\n", workers[i].name, (unsigned long long)results[i].value,
			status == 0 ? "ok" : results[i].problem[0] ? results[i].problem : "ended by a signal");
	}
	dprintf(serial, "%d processors, end\n", processors);
	tcdrain(serial); /* the kernel does not wait for it */
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
