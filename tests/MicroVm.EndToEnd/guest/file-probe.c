// What files can do beyond reading and writing: file-probe FOLDER, where the host has a folder "setgid" of group 3000, mode 2777.
// A line for each check, "good" or what is wrong.
// As root with the capabilities that a container has by default. Or: file-probe acl FILE UID.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *folder;

static void check(const char *name, int good)
{
	if (good)
		puts("good");
	else
		printf("%s %s: %s\n", folder, name, strerror(errno));
	fflush(stdout);
}

// What a user who is in a group besides his own makes of a file, or does to it; the mode then.
static int as_user(uid_t uid, gid_t group, int (*act)(const char *), const char *path)
{
	int status;
	struct stat s;
	if (!fork()) {
		umask(0);
		if (setgroups(group ? 1 : 0, &group) || setgid(uid) || setuid(uid))
			_exit(9);
		_exit(act(path));
	}
	wait(&status);
	return status || stat(path, &s) ? -1 : (int)(s.st_mode & 07777);
}

static int create(const char *path) { return open(path, O_CREAT | O_EXCL | O_WRONLY, 02775) < 0; }
static int append(const char *path) { int f = open(path, O_WRONLY | O_APPEND); return f < 0 || write(f, "x", 1) != 1; }
static int shorten(const char *path) { return truncate(path, 1); }
static int empty(const char *path) { return open(path, O_WRONLY | O_TRUNC) < 0; }
static int make_folder(const char *path) { return mkdir(path, 0775); }

static int unnamed(const char *path)
{
	char link[64];
	int f = openat(AT_FDCWD, "setgid", O_TMPFILE | O_RDWR, 02775);
	sprintf(link, "/proc/self/fd/%d", f);
	return f < 0 || linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

// The mode after ACT by root or a user, who may write, of a file that had MODE.
static int after(int mode, uid_t uid, int (*act)(const char *))
{
	unlink("bits");
	int f = open("bits", O_CREAT | O_RDWR, 0666);
	if (f < 0 || write(f, "data", 4) != 4)
		return -1;
	close(f);
	if (chmod("bits", mode))
		return -1;
	return as_user(uid, 0, act, "bits");
}

static void set_id_bits(void)
{
	int (*acts[])(const char *) = { append, shorten, empty };
	for (int i = 0; i < 3; i++) {
		check("root keeps the bits", after(06777, 0, acts[i]) == 06777);
		check("a user clears them", after(06777, 1000, acts[i]) == 0777);
		check("locking's bit is no set-group-id for root", after(02666, 0, acts[i]) == 02666);
	}

	check("creat by root after that", as_user(0, 0, create, "setgid/root") == 02775);
	check("creat by a member", as_user(1000, 3000, create, "setgid/member") == 02775);
	check("creat by another", as_user(1000, 4000, create, "setgid/other") == 0775);
	check("unnamed by a member", as_user(1000, 3000, unnamed, "setgid/unnamed") == 02775);
	check("mkdir by another", as_user(1000, 0, make_folder, "setgid/folder") == 02775);
}

static void attributes(void)
{
	char b[4096];
	int f = open("x", O_CREAT | O_RDWR, 0600);
	check("user.a", !setxattr("x", "user.a", "1", 1, 0) && getxattr("x", "user.a", b, 9) == 1);
	check("trusted.a", !setxattr("x", "trusted.a", "2", 1, 0) && getxattr("x", "trusted.a", b, 9) == 1 && *b == '2');
	ssize_t n = listxattr("x", b, sizeof b);
	check("list", n > 0 && memmem(b, n, "trusted.a", 10) && memmem(b, n, "user.a", 7) && !memmem(b, n, "microvm", 7));
	check("trusted.a is removed", !removexattr("x", "trusted.a") && getxattr("x", "trusted.a", b, 9) < 0 && errno == ENODATA);

	long flags = -1;
	errno = 0;
	check("getflags", !ioctl(f, FS_IOC_GETFLAGS, &flags) || errno == ENOTTY || errno == EOPNOTSUPP);
	if (flags != -1) {
		long noatime = flags | FS_NOATIME_FL, now = 0;
		check("setflags", !ioctl(f, FS_IOC_SETFLAGS, &noatime) && !ioctl(f, FS_IOC_GETFLAGS, &now) && (now & FS_NOATIME_FL));
		int d = open(".", O_RDONLY | O_DIRECTORY);
		check("getflags of a folder", !ioctl(d, FS_IOC_GETFLAGS, &flags));
	}
	check("another ioctl", ioctl(f, _IOR('x', 1, int), b) < 0 && errno == ENOTTY);
}

static void ranges(void)
{
	static char b[65536];
	int f = open("ranges", O_CREAT | O_RDWR | O_TRUNC, 0600);
	struct stat s;
	for (int i = 0; i < 4; i++) {
		memset(b, 'a' + i, sizeof b);
		if (write(f, b, sizeof b) != sizeof b)
			check("write", 0);
	}
	if (fallocate(f, FALLOC_FL_COLLAPSE_RANGE, 65536, 65536)) {
		check("collapse", errno == EOPNOTSUPP);
		return;
	}
	check("collapsed", !fstat(f, &s) && s.st_size == 3 * 65536 && pread(f, b, 1, 65535) == 1 && *b == 'a' && pread(f, b, 1, 65536) == 1 && *b == 'c');
	if (fallocate(f, FALLOC_FL_INSERT_RANGE, 65536, 65536)) {
		check("insert", errno == EOPNOTSUPP);
		return;
	}
	check("inserted", !fstat(f, &s) && s.st_size == 4 * 65536 && pread(f, b, 1, 65536) == 1 && *b == 0 && pread(f, b, 1, 131072) == 1 && *b == 'c');
}

static void handles(void)
{
	union { struct file_handle h; char room[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } u = { .h.handle_bytes = MAX_HANDLE_SZ };
	int mount;
	check("name_to_handle_at", !name_to_handle_at(AT_FDCWD, "x", &u.h, &mount, 0) || errno == EOPNOTSUPP);
}

// An ACL that lets a user read and write.
static int acl(const char *path, unsigned uid)
{
	struct { unsigned version; struct { unsigned short tag, permissions; unsigned id; } entries[5]; } value = {
		2, { { 1, 6, -1 }, { 2, 6, uid }, { 4, 4, -1 }, { 0x10, 6, -1 }, { 0x20, 4, -1 } },
	};
	int f = open(path, O_CREAT | O_RDWR, 0644);
	puts(f >= 0 && !setxattr(path, "system.posix_acl_access", &value, sizeof value, 0) ? "set" : strerror(errno));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "acl"))
		return acl(argv[2], atoi(argv[3]));
	for (int i = 1; i < argc; i++) {
		folder = argv[i];
		if (chdir(folder))
			return 9;
		set_id_bits();
		attributes();
		ranges();
		handles();
		puts("done");
	}
	return 0;
}
