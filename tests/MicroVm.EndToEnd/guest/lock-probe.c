// Locks as processes of a container see them: lock-probe COMMAND ARGUMENTS..., answers in words. KIND is flock, posix or ofd,
// TYPE r, w or u; START and LENGTH are for the latter two.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct flock range(const char *type, long start, long length)
{
	return (struct flock){
		.l_type = *type == 'r' ? F_RDLCK : *type == 'w' ? F_WRLCK : F_UNLCK,
		.l_whence = SEEK_SET, .l_start = start, .l_len = length,
	};
}

static int take(int fd, const char *kind, const char *type, long start, long length, int wait)
{
	if (!strcmp(kind, "flock"))
		return flock(fd, (*type == 'r' ? LOCK_SH : *type == 'w' ? LOCK_EX : LOCK_UN) | (wait ? 0 : LOCK_NB));
	struct flock f = range(type, start, length);
	return fcntl(fd, *kind == 'o' ? (wait ? F_OFD_SETLKW : F_OFD_SETLK) : (wait ? F_SETLKW : F_SETLK), &f);
}

static const char *word(int result)
{
	return result >= 0 ? "got" : errno == EAGAIN || errno == EACCES ? "busy" : strerrorname_np(errno);
}

static int say(const char *text)
{
	puts(text);
	fflush(stdout);
	return 0;
}

static int open_or_die(const char *path)
{
	int fd = open(path, O_RDWR);
	if (fd < 0 && errno == EISDIR)
		fd = open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0) {
		perror(path);
		exit(9);
	}
	return fd;
}

// What another process finds when it tries.
static const char *another(const char *kind, const char *path, const char *type, long start, long length)
{
	static char answer[32];
	int p[2];
	if (pipe(p))
		exit(8);
	if (!fork()) {
		int fd = open_or_die(path);
		dprintf(p[1], "%s", word(take(fd, kind, type, start, length, 0)));
		_exit(0);
	}
	close(p[1]);
	ssize_t n = read(p[0], answer, sizeof answer - 1);
	answer[n < 0 ? 0 : n] = 0;
	close(p[0]);
	wait(NULL);
	return answer;
}

// What POSIX says of fork, close and dup.
static int closing(const char *path)
{
	int a = open_or_die(path);
	take(a, "posix", "w", 0, 10, 0);
	if (!fork()) {
		close(a);
		_exit(0);
	}
	wait(NULL);
	printf("child-closed=%s ", another("posix", path, "w", 0, 10));
	int b = open_or_die(path);
	close(b);
	printf("other-closed=%s ", another("posix", path, "w", 0, 10));

	take(a, "ofd", "w", 0, 10, 0);
	b = dup(a);
	close(a);
	printf("dup-kept=%s ", another("ofd", path, "w", 0, 10));
	close(b);
	printf("last-closed=%s ", another("ofd", path, "w", 0, 10));

	a = open_or_die(path);
	take(a, "flock", "w", 0, 0, 0);
	b = dup(a);
	close(a);
	printf("flock-dup-kept=%s ", another("flock", path, "w", 0, 0));
	close(b);
	printf("flock-closed=%s ", another("flock", path, "w", 0, 0));

	a = open_or_die(path);
	take(a, "posix", "w", 0, 100, 0);
	take(a, "posix", "u", 40, 20, 0);
	take(a, "posix", "r", 90, 10, 0);
	printf("middle=%s ", another("posix", path, "w", 40, 20));
	printf("left=%s ", another("posix", path, "r", 39, 1));
	printf("weakened=%s", another("posix", path, "r", 90, 10));
	printf("/%s\n", another("posix", path, "w", 90, 10));
	return 0;
}

// Two processes that want what the other has.
static int deadlock(const char *path)
{
	int ready[2], p[2];
	if (pipe(ready) || pipe(p))
		return 8;
	for (int i = 0; i < 2; i++) {
		if (fork())
			continue;
		int fd = open_or_die(path);
		char c;
		take(fd, "posix", "w", i, 1, 1);
		if (write(ready[1], "x", 1) != 1)
			_exit(8);
		// The parent lets both go on when both have theirs.
		if (read(p[0], &c, 1) != 1)
			_exit(8);
		int r = take(fd, "posix", "w", 1 - i, 1, 1);
		_exit(r == 0 ? 0 : errno == EDEADLK ? 35 : 1);
	}
	char two[2];
	for (int i = 0; i < 2; i++)
		if (read(ready[0], two + i, 1) != 1)
			return 8;
	if (write(p[1], "xx", 2) != 2)
		return 8;
	int s, sum = 0;
	for (int i = 0; i < 2; i++) {
		wait(&s);
		sum += WEXITSTATUS(s);
	}
	return say(sum == 35 ? "one gets EDEADLK, the other goes on" : "wrong");
}

// A number in a file that each turn reads, adds one to and writes under a lock: by read and write, or in a mapping.
static int count(const char *kind, const char *path, int turns, int mapped)
{
	int fd = open_or_die(path);
	volatile long *number = mapped ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : NULL;
	if (number == MAP_FAILED)
		return say("no mapping");
	for (int i = 0; i < turns; i++) {
		long n = 0;
		if (take(fd, kind, "w", 0, 0, 1))
			return say(word(-1));
		if (mapped) {
			++*number;
		} else if (pread(fd, &n, sizeof n, 0) != sizeof n || (++n, pwrite(fd, &n, sizeof n, 0)) != sizeof n) {
			return say("short");
		}
		if (take(fd, kind, "u", 0, 0, 0))
			return say(word(-1));
	}
	return say("counted");
}

static void on_alarm(int signal)
{
	(void)signal;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	if (!strcmp(command, "try") || !strcmp(command, "hold") || !strcmp(command, "alarm")) { // KIND PATH TYPE [START LENGTH]
		int fd = open_or_die(argv[3]);
		if (*command == 'a') {
			sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
			alarm(1);
		}
		int r = take(fd, argv[2], argv[4], argc > 6 ? atol(argv[5]) : 0, argc > 6 ? atol(argv[6]) : 0, *command != 't');
		say(word(r));
		if (*command == 'h' && r == 0)
			pause();
		return 0;
	}
	if (!strcmp(command, "who")) { // PATH TYPE START LENGTH
		struct flock f = range(argv[3], atol(argv[4]), atol(argv[5]));
		if (fcntl(open_or_die(argv[2]), F_GETLK, &f))
			return say(strerrorname_np(errno));
		if (f.l_type == F_UNLCK)
			return say("free");
		printf("%s %ld+%ld by %s\n", f.l_type == F_RDLCK ? "r" : "w", (long)f.l_start, (long)f.l_len, f.l_pid > 0 ? "a process" : "others");
		return 0;
	}
	if (!strcmp(command, "count")) // KIND PATH TURNS read|map
		return count(argv[2], argv[3], atoi(argv[4]), *argv[5] == 'm');
	if (!strcmp(command, "closing"))
		return closing(argv[2]);
	if (!strcmp(command, "deadlock"))
		return deadlock(argv[2]);
	return 2;
}
