/*
 * file-life FOLDER: what becomes of files below an empty folder that are unlinked, replaced, exchanged, cut or given ACLs while they
 * are open, mapped or listed, and a line of each step with what came of it. Another way to the same file system must say the same.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SAY(name, call) (errno = 0, say(name, (long)(call)))
#define NOREPLACE 1
#define EXCHANGE 2
#define GIB (1L << 30)

static char buffer[1 << 17];
static struct stat status;
static sigjmp_buf jump;

static void say(const char *name, long result)
{
	if (result < 0)
		printf("%s: %s\n", name, strerrorname_np(errno));
	else
		printf("%s: %ld\n", name, result);
}

static int opens(const char *path, int flags, int mode)
{
	int fd = open(path, flags, mode);

	return fd < 0 ? -1 : close(fd);
}

static void make(const char *path, const char *contents)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);

	if (write(fd, contents, strlen(contents)) < 0)
		perror(path);
	close(fd);
}

static struct stat of(const char *path)
{
	struct stat found = { 0 };

	lstat(path, &found);
	return found;
}

static int swap(const char *from, const char *to, unsigned flags)
{
	return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

static char *by_proc(int fd)
{
	static char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return path;
}

static void unlinked(void)
{
	int fd = open("u", O_CREAT | O_RDWR, 0644);

	SAY("unlink an open file", (pwrite(fd, "hello", 5, 0), unlink("u")));
	SAY("open it by /proc", opens(by_proc(fd), O_RDWR, 0));
	SAY("and again", opens(by_proc(fd), O_RDONLY, 0));
	SAY("truncate it by /proc", truncate(by_proc(fd), 3));
	SAY("its size", (fstat(fd, &status), status.st_size));
	SAY("give it a name", linkat(AT_FDCWD, by_proc(fd), AT_FDCWD, "u", AT_SYMLINK_FOLLOW));
	SAY("an attribute", fsetxattr(fd, "user.x", "1", 1, 0));
	SAY("read that", fgetxattr(fd, "user.x", buffer, 9));
	SAY("fallocate it", fallocate(fd, 0, 0, 10000));
	SAY("lock it", flock(fd, LOCK_EX | LOCK_NB));
	SAY("chmod it by /proc", chmod(by_proc(fd), 0600));
	SAY("map it", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
	close(fd);
	make("u", "path");
	fd = open("u", O_PATH);
	SAY("unlink what is open by O_PATH", unlink("u"));
	SAY("its links", (fstat(fd, &status), status.st_nlink));
	SAY("open that by /proc", opens(by_proc(fd), O_RDWR, 0));
	close(fd);
	make("old", "old"), make("new", "newer");
	fd = open("old", O_RDONLY);
	SAY("replace an open file", rename("new", "old"));
	SAY("read the old one", pread(fd, buffer, 9, 0));
	SAY("the new one", of("old").st_size);
	close(fd);
	make("x", "x"), link("x", "y");
	fd = open("x", O_RDWR);
	SAY("unlink one of two names", unlink("x"));
	SAY("its links", (fstat(fd, &status), status.st_nlink));
	SAY("a third name by /proc", linkat(AT_FDCWD, by_proc(fd), AT_FDCWD, "z", AT_SYMLINK_FOLLOW));
	SAY("its links", of("y").st_nlink);
	close(fd);
}

static void unnamed(void)
{
	int fd = open(".", O_TMPFILE | O_RDWR, 0640);

	SAY("write to an unnamed file", write(fd, "tmp", 3));
	SAY("an attribute", fsetxattr(fd, "user.t", "v", 1, 0));
	SAY("its links", (fstat(fd, &status), status.st_nlink));
	SAY("name it", linkat(AT_FDCWD, by_proc(fd), AT_FDCWD, "t1", AT_SYMLINK_FOLLOW));
	SAY("name it again", linkat(AT_FDCWD, by_proc(fd), AT_FDCWD, "t2", AT_SYMLINK_FOLLOW));
	SAY("its links", of("t1").st_nlink);
	SAY("its attribute", getxattr("t1", "user.t", buffer, 9));
	SAY("the same inode", (fstat(fd, &status), status.st_ino == of("t2").st_ino));
	SAY("write more", write(fd, "more", 4));
	SAY("its size", of("t2").st_size);
	close(fd);
	fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0640);
	SAY("name one that is to have none", linkat(AT_FDCWD, by_proc(fd), AT_FDCWD, "t3", AT_SYMLINK_FOLLOW));
	close(fd);
	SAY("an unnamed file for reading", opens(".", O_TMPFILE | O_RDONLY, 0640));
	SAY("one in a file", opens("t1", O_TMPFILE | O_RDWR, 0640));
}

static void renamed(void)
{
	int fd;

	make("r1", "1"), make("r2", "22"), mkdir("rd", 0755), make("rd/x", ""), symlink("r1", "rs");
	SAY("exchange files", swap("r1", "r2", EXCHANGE));
	printf("sizes %ld %ld\n", (long)of("r1").st_size, (long)of("r2").st_size);
	fd = open("rd", O_PATH);
	SAY("exchange a link and a folder", swap("rs", "rd", EXCHANGE));
	printf("modes %o %o\n", of("rs").st_mode, of("rd").st_mode);
	SAY("what the folder's descriptor leads to", faccessat(fd, "x", F_OK, 0));
	SAY("exchange a folder with what is in it", swap("rs", "rs/x", EXCHANGE));
	SAY("exchange with itself", swap("r1", "r1", EXCHANGE));
	SAY("rename to what is there", swap("r1", "r2", NOREPLACE));
	make("h1", ""), link("h1", "h2");
	SAY("rename to another name of the file", rename("h1", "h2"));
	printf("links %ld %ld\n", (long)of("h1").st_nlink, (long)of("h2").st_nlink);
	SAY("a slash after a file", rename("h1", "h9/"));
	SAY("a slash after a folder", (mkdir("ds", 0755), rename("ds/", "dt/")));
	SAY("rename to ..", rename("dt", "dt/.."));
	mkdir("n1", 0755), mkdir("n1/n2", 0755);
	SAY("links of a folder with one", of("n1").st_nlink);
	SAY("move that out", (rename("n1/n2", "n3"), of("n1").st_nlink));
	SAY("enter it", chdir("n3"));
	SAY("rename the working folder", rename("../n3", "../n4"));
	printf("working folder %s\n", strrchr(getcwd(buffer, sizeof buffer), '/'));
	SAY("make a file in it", opens("in", O_CREAT | O_RDWR, 0644));
	SAY("leave it", chdir(".."));
	SAY("is it there", access("n4/in", F_OK));
	mkdir("gone", 0755), chdir("gone"), rmdir("../gone");
	SAY("a removed working folder", getcwd(buffer, sizeof buffer) ? 0 : -1);
	SAY("open it", opens(".", O_RDONLY, 0));
	SAY("what is above it", stat("..", &status));
	SAY("make a folder in it", mkdir("x", 0755));
	SAY("leave it", chdir(".."));
	close(fd);
}

static void print_acl(const char *path, const char *name)
{
	ssize_t length = getxattr(path, name, buffer, 1000);

	printf("%s %s of %zd bytes, mode %o:", path, name, length, of(path).st_mode);
	for (ssize_t i = 0; i < length; i++)
		printf(" %d", (unsigned char)buffer[i]);
	puts("");
}

/* A folder's default ACL: for its owner, user 1000, its group, whom the mask bounds, and nobody else. */
static void acls(void)
{
	static const uint8_t acl[] = {
		2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 232, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
		16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
	};

	mkdir("acl", 0770);
	if (setxattr("acl", "system.posix_acl_default", acl, sizeof acl, 0) < 0) {
		printf("no ACLs: %s\n", strerrorname_np(errno));
		return;
	}
	umask(0);
	SAY("a file below a default ACL", opens("acl/f", O_CREAT | O_RDWR, 0666));
	print_acl("acl/f", "system.posix_acl_access");
	SAY("a folder", mkdir("acl/d", 0751));
	print_acl("acl/d", "system.posix_acl_access");
	print_acl("acl/d", "system.posix_acl_default");
	SAY("a FIFO", mkfifo("acl/p", 0666));
	print_acl("acl/p", "system.posix_acl_access");
	SAY("chmod changes the mask", chmod("acl/f", 0640));
	print_acl("acl/f", "system.posix_acl_access");
	SAY("a link", symlink("f", "acl/s"));
	SAY("its ACL", lgetxattr("acl/s", "system.posix_acl_access", buffer, 1000));
	SAY("a default ACL of a file", setxattr("acl/f", "system.posix_acl_default", acl, sizeof acl, 0));
	SAY("one of a wrong length", setxattr("acl/f", "system.posix_acl_access", acl, sizeof acl - 1, 0));
	SAY("remove it", removexattr("acl/f", "system.posix_acl_access"));
	print_acl("acl/f", "system.posix_acl_access");
	umask(022);
}

static void sparse(void)
{
	int fd = open("sparse", O_CREAT | O_RDWR, 0644), copy;
	char *map;

	SAY("a byte at 5 GiB", pwrite(fd, "x", 1, 5 * GIB));
	SAY("two at 9 GiB", pwrite(fd, "yy", 2, 9 * GIB + 123));
	SAY("its size", (fstat(fd, &status), status.st_size));
	SAY("it has holes", status.st_blocks < 1000);
	SAY("the first data", lseek(fd, 0, SEEK_DATA));
	SAY("the hole after it", lseek(fd, 5 * GIB, SEEK_HOLE));
	SAY("the data after that", lseek(fd, 5 * GIB + 4096, SEEK_DATA));
	SAY("the hole at the end", lseek(fd, 9 * GIB + 123, SEEK_HOLE));
	SAY("data at the end", lseek(fd, 9 * GIB + 125, SEEK_DATA));
	SAY("a hole at the end", lseek(fd, 9 * GIB + 125, SEEK_HOLE));
	SAY("lengthen it", ftruncate(fd, 12 * GIB));
	SAY("punch a hole", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * GIB, 4096));
	SAY("the first data", lseek(fd, 0, SEEK_DATA));
	copy = open("sparse", O_WRONLY | O_APPEND);
	SAY("append", write(copy, "z", 1));
	close(copy);
	SAY("its size", (fstat(fd, &status), status.st_size));
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 9 * GIB);
	map[0] = 'm';
	SAY("read what was mapped", (pread(fd, buffer, 1, 9 * GIB), buffer[0]));
	munmap(map, 4096);
	copy = open("copy", O_CREAT | O_RDWR, 0644);
	SAY("copy a range", copy_file_range(fd, (loff_t[]){ 9 * GIB }, copy, (loff_t[]){ 6 * GIB }, 1000, 0));
	SAY("size of the copy", (fstat(copy, &status), status.st_size));
	SAY("a byte at the end of all", pwrite(copy, "x", 1, INT64_MAX));
	close(copy), close(fd), unlink("sparse"), unlink("copy");
}

static void fault(int signal)
{
	siglongjmp(jump, signal);
}

static void touch(const char *name, char *at)
{
	int caught = sigsetjmp(jump, 1);

	if (caught == 0)
		*(volatile char *)at = 1;
	printf("%s: signal %d\n", name, caught);
}

static void mapped(void)
{
	int fd = open("map", O_CREAT | O_RDWR, 0644), reader = open("map", O_RDONLY), writer = open("map", O_WRONLY);
	char *map, *seen, *own;

	signal(SIGBUS, fault);
	ftruncate(fd, 8192);
	map = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	touch("a page behind the end", map + 9000);
	touch("a page of the file", map + 5000);
	ftruncate(fd, 4096);
	touch("the same when it was cut off", map + 5000);
	ftruncate(fd, 8192);
	SAY("the same when the file is long again", map[5000]);
	map[100] = 'a';
	SAY("read what was mapped", (pread(fd, buffer, 1, 100), buffer[0]));
	SAY("map what was written", (pwrite(fd, "b", 1, 100), map[100]));
	SAY("map for writing what is open for reading", mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED ? -1 : 0);
	SAY("map for reading what is open for writing", mmap(NULL, 4096, PROT_READ, MAP_SHARED, writer, 0) == MAP_FAILED ? -1 : 0);
	own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, reader, 0);
	own[0] = 'P';
	SAY("a private change", (pread(fd, buffer, 1, 0), buffer[0]));
	seen = mmap(NULL, 4096, PROT_READ, MAP_SHARED, reader, 0);
	SAY("what was written, by a reader's map", (pwrite(fd, "Z", 1, 7), seen[7]));
	SAY("what was mapped, by a reader's map", (map[8] = 'Y', seen[8]));
	SAY("make that writable", mprotect(seen, 4096, PROT_READ | PROT_WRITE));
	SAY("remove a page", madvise(map, 4096, MADV_REMOVE));
	SAY("what is there", map[8]);
	SAY("map a folder", mmap(NULL, 4096, PROT_READ, MAP_SHARED, open(".", O_RDONLY), 0) == MAP_FAILED ? -1 : 0);
	SAY("unlink a mapped file", unlink("map"));
	SAY("write to it", (map[9] = 'w', pread(fd, buffer, 1, 9), buffer[0]));
	close(fd), close(reader), close(writer);
	signal(SIGBUS, SIG_DFL);
}

static void listed(void)
{
	char name[300], at[300] = "";
	struct dirent *entry;
	int count = 0, seen = 0;
	long position = 0;
	DIR *folder;

	mkdir("many", 0755), chdir("many");
	for (int i = 0; i < 1200; i++)
		snprintf(name, sizeof name, "f%d", i), opens(name, O_CREAT | O_RDWR, 0644);
	folder = opendir(".");
	while ((entry = readdir(folder)) != NULL) {
		if (entry->d_type != DT_REG && entry->d_type != DT_DIR)
			printf("%s has type %d\n", entry->d_name, entry->d_type);
		if (++count == 700) {
			position = telldir(folder);
			strcpy(at, readdir(folder)->d_name);
			count++;
		}
	}
	printf("%d entries\n", count);
	seekdir(folder, position);
	printf("%s entry after seekdir\n", strcmp(readdir(folder)->d_name, at) == 0 ? "the same" : "another");
	opens("added", O_CREAT | O_RDWR, 0644);
	rewinddir(folder);
	for (count = 0; (entry = readdir(folder)) != NULL; count++)
		seen |= strcmp(entry->d_name, "added") == 0;
	printf("%d entries, the new one %d\n", count, seen);
	rewinddir(folder);
	for (count = 0; (entry = readdir(folder)) != NULL;)
		count += entry->d_name[0] == 'f' && unlink(entry->d_name) == 0;
	printf("%d removed as they were listed\n", count);
	closedir(folder);
	chdir("..");
	SAY("read a folder", read(open("many", O_RDONLY), buffer, 10));
	SAY("fsync a folder", fsync(open("many", O_RDONLY)));
}

static void others(void)
{
	struct iovec part = { buffer, 100 };
	struct statvfs space;
	int fd = open("other", O_CREAT | O_RDWR, 0644), watch = inotify_init1(IN_NONBLOCK), end;
	ssize_t length;

	SAY("append one write", pwritev2(fd, &part, 1, 0, RWF_APPEND));
	SAY("write one through", pwritev2(fd, &part, 1, 0, RWF_DSYNC));
	SAY("with a flag that there is not", pwritev2(fd, &part, 1, 0, 0x4000));
	SAY("syncfs", syncfs(fd));
	SAY("a length of names", (statvfs(".", &space), space.f_namemax));
	close(fd);
	SAY("a lease", fcntl(open("other", O_RDONLY), F_SETLEASE, F_RDLCK));
	inotify_add_watch(watch, ".", IN_CREATE | IN_MOVE | IN_ATTRIB | IN_DELETE | IN_CLOSE_WRITE);
	opens("event", O_CREAT | O_RDWR, 0644), rename("event", "moved"), chmod("moved", 0600), unlink("moved");
	length = read(watch, buffer, sizeof buffer);
	for (char *at = buffer; at < buffer + length;) {
		struct inotify_event *event = (void *)at;

		printf("event %x %s\n", event->mask, event->name);
		at += sizeof *event + event->len;
	}
	make("script", "#!/bin/sh\nexit 3\n"), chmod("script", 0755);
	fd = open("script", O_WRONLY);
	if (fork() == 0) {
		execl("./script", "script", NULL);
		_exit(errno);
	}
	wait(&end);
	SAY("run what is open for writing", WEXITSTATUS(end));
	close(fd);
	SAY("run it", WEXITSTATUS(system("./script")));
}

int main(int argc, char **argv)
{
	if (argc != 2 || chdir(argv[1]) < 0)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0);
	chmod(".", 0777);
	umask(022);
	unlinked();
	unnamed();
	renamed();
	acls();
	sparse();
	mapped();
	listed();
	others();
	return 0;
}
