// Work with small files, timed: fileload NAME DIRECTORY FILES prints lines "NAME OPERATION NANOSECONDS", each the time of one operation
// on average over all files: create (and write 4 KiB), stat, open (and read, and close), rename, readdir (an entry), unlink; and
// read1m, the time of a read of 1 MiB that nothing has cached.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *who;
static char buffer[1 << 20];

static void need(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void say(const char *operation, long long start, long count)
{
	printf("%s %s %lld\n", who, operation, (now() - start) / count);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const int megabytes = 64;
	char name[64], other[64];
	struct stat st;

	need(argc == 4, "usage: fileload NAME DIRECTORY FILES");
	who = argv[1];
	int files = atoi(argv[3]);
	need(!mkdir(argv[2], 0755) && !chdir(argv[2]), argv[2]);
	long long start = now();
	for (int i = 0; i < files; i++) {
		sprintf(name, "f%d", i);
		int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		need(fd >= 0 && write(fd, buffer, 4096) == 4096 && !close(fd), name);
	}
	say("create", start, files);

	start = now();
	for (int i = 0; i < files; i++) {
		sprintf(name, "f%d", i);
		need(!stat(name, &st), name);
	}
	say("stat", start, files);

	start = now();
	for (int i = 0; i < files; i++) {
		sprintf(name, "f%d", i);
		int fd = open(name, O_RDONLY);
		need(fd >= 0 && read(fd, buffer, 8192) == 4096 && !close(fd), name);
	}
	say("open", start, files);

	start = now();
	for (int i = 0; i < files; i++) {
		sprintf(name, "f%d", i);
		sprintf(other, "g%d", i);
		need(!rename(name, other), name);
	}
	say("rename", start, files);

	start = now();
	long entries = 0;
	for (int i = 0; i < 3; i++) {
		DIR *d = opendir(".");
		need(d != NULL, ".");
		while (readdir(d))
			entries++;
		closedir(d);
	}
	say("readdir", start, entries);

	start = now();
	for (int i = 0; i < files; i++) {
		sprintf(other, "g%d", i);
		need(!unlink(other), other);
	}
	say("unlink", start, files);

	int fd = open("big", O_RDWR | O_CREAT, 0644);
	need(fd >= 0, "big");
	for (int i = 0; i < megabytes; i++)
		need(write(fd, buffer, sizeof buffer) == sizeof buffer, "write");
	need(!fsync(fd) && !posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fsync");
	start = now();
	for (int i = 0; i < megabytes; i++)
		need(pread(fd, buffer, sizeof buffer, (off_t)i << 20) == sizeof buffer, "pread");
	say("read1m", start, megabytes);
	close(fd);
	unlink("big");
	need(!chdir("..") && !rmdir(argv[2]), argv[2]);
	return 0;
}
