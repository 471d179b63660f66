/*
 * file-table FOLDER: some hundred operations on files below an empty folder, and a line of each with what came of it. A file system
 * that is reached some other way, as from a VM, must say the same as when it is used by itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SAY(name, call) (errno = 0, say(name, (long)(call)))
#define EXCHANGE 2
#define NOREPLACE 1

static char text[70000];

static void say(const char *name, long result)
{
	if (result < 0)
		printf("%s: %s\n", name, strerrorname_np(errno));
	else
		printf("%s: %ld\n", name, result);
}

/* Whether it worked: descriptors have other numbers elsewhere. */
static int opens(const char *path, int flags, int mode)
{
	int fd = open(path, flags, mode);

	return fd < 0 ? -1 : close(fd);
}

static void make(const char *path, const char *contents, int mode)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	if (write(fd, contents, strlen(contents)) < 0)
		perror(path);
	close(fd);
	chmod(path, mode);
}

static struct stat of(const char *path)
{
	struct stat status = { 0 };

	lstat(path, &status);
	return status;
}

static int swap(const char *from, const char *to, unsigned flags)
{
	return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

static void names(void)
{
	char name[300], target[5000];

	memset(name, 'n', sizeof name);
	name[255] = 0;
	SAY("a name of 255 bytes", opens(name, O_CREAT | O_RDWR, 0644));
	SAY("unlink it", unlink(name));
	name[255] = 'n', name[256] = 0;
	SAY("a name of 256 bytes", opens(name, O_CREAT | O_RDWR, 0644));
	memset(target, 't', sizeof target);
	target[4095] = 0;
	SAY("symlink of 4095 bytes", symlink(target, "long"));
	target[4095] = 't', target[4096] = 0;
	SAY("symlink of 4096 bytes", symlink(target, "longer"));
	SAY("symlink to nothing", symlink("", "empty"));
	SAY("a name that is no UTF-8", opens("\xff\xfe\n", O_CREAT | O_RDWR, 0644));
	SAY("unlink it", unlink("\xff\xfe\n"));
	SAY("a file with a slash", opens("slash/", O_CREAT | O_RDWR, 0644));
	SAY("truncate a folder", truncate(".", 0));
	SAY("mkdir .", mkdir(".", 0755));
	SAY("rmdir .", rmdir("."));
	mkdir("a", 0755), mkdir("b", 0755), make("b/x", "", 0644), make("f", "1", 0644);
	SAY("unlink a folder", unlink("a"));
	SAY("rmdir a folder that is not empty", rmdir("b"));
	SAY("rename a folder to one that is not empty", rename("a", "b"));
	SAY("rename a folder to a file", rename("a", "f"));
	SAY("rename a file to a folder", rename("f", "a"));
	SAY("rename a folder into itself", rename("b", "b/y"));
	SAY("exchange a file and a folder", swap("f", "b", EXCHANGE));
	printf("modes %o %o\n", of("f").st_mode, of("b").st_mode);
	SAY("exchange with nothing", swap("f", "none", EXCHANGE));
	SAY("rename without replacing", swap("b", "f", NOREPLACE));
	SAY("rename with flags that exclude each other", swap("b", "f", EXCHANGE | NOREPLACE));
	SAY("link", link("b", "c"));
	printf("links %ld\n", (long)of("c").st_nlink);
	SAY("link a folder", link("f", "g"));
	SAY("link to a name that is there", link("b", "c"));
	SAY("symlink to a name that is there", symlink("x", "c"));
	SAY("mknod of a file", mknod("plain", S_IFREG | 0640, 0));
	SAY("mknod of a folder", mknod("folder", S_IFDIR | 0755, 0));
	SAY("mkfifo", mkfifo("fifo", 0644));
	SAY("a writer without a reader", opens("fifo", O_WRONLY | O_NONBLOCK, 0));
	SAY("open with O_NOFOLLOW", (symlink("c", "s"), opens("s", O_NOFOLLOW, 0)));
	SAY("chmod of a symbolic link", fchmodat(AT_FDCWD, "s", 0600, AT_SYMLINK_NOFOLLOW));
	SAY("lchown", lchown("s", 5, 6));
	printf("owners %d %d\n", of("s").st_uid, of("s").st_gid);
	SAY("a file as a folder", opens("c", O_DIRECTORY, 0));
	SAY("a folder for writing", opens("a", O_RDWR, 0));
	SAY("O_EXCL", opens("c", O_CREAT | O_EXCL | O_RDWR, 0644));
	SAY("O_EXCL at a dangling link", (symlink("nowhere", "d"), opens("d", O_CREAT | O_EXCL | O_RDWR, 0644)));
	SAY("O_CREAT through a dangling link", opens("d", O_CREAT | O_RDWR, 0644));
	printf("its mode %o\n", of("nowhere").st_mode);
}

static void times(void)
{
	struct timespec before[2] = { { -1, 5 }, { -1000000, 999999999 } }, bad[2] = { { 0, 2000000000 }, { 0, 0 } };
	struct timespec omit[2] = { { 0, UTIME_OMIT }, { 77, 0 } }, nine[2] = { { 9, 0 }, { 9, 0 } };

	make("time", "t", 0644);
	SAY("before 1970", utimensat(AT_FDCWD, "time", before, 0));
	printf("%ld.%09ld %ld.%09ld\n", of("time").st_atim.tv_sec, of("time").st_atim.tv_nsec, of("time").st_mtim.tv_sec, of("time").st_mtim.tv_nsec);
	SAY("nanoseconds of two seconds", utimensat(AT_FDCWD, "time", bad, 0));
	SAY("one of two times", utimensat(AT_FDCWD, "time", omit, 0));
	printf("%ld %ld\n", of("time").st_atim.tv_sec, of("time").st_mtim.tv_sec);
	SAY("times of a symbolic link", (symlink("time", "timelink"), utimensat(AT_FDCWD, "timelink", nine, AT_SYMLINK_NOFOLLOW)));
	printf("%ld %ld\n", of("timelink").st_mtim.tv_sec, of("time").st_mtim.tv_sec);
}

static void contents(void)
{
	struct rlimit limit = { 1000, 1000 }, unlimited;
	struct stat status;
	char byte[8] = "";
	int fd = open("io", O_CREAT | O_RDWR | O_APPEND, 0644), other, pipes[2];

	SAY("append", write(fd, "abc", 3));
	SAY("pwrite of who appends", pwrite(fd, "XYZ", 3, 0));
	SAY("size", (fstat(fd, &status), status.st_size));
	SAY("read at the end", pread(fd, byte, 8, 6));
	SAY("a negative offset", pwrite(fd, "x", 1, -1));
	SAY("fallocate of nothing", fallocate(fd, 0, 0, 0));
	SAY("fallocate before the start", fallocate(fd, 0, -1, 5));
	SAY("a hole that lengthens", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
	SAY("collapse in the midst of pages", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 100, 100));
	close(fd);
	fd = open("io", O_RDONLY);
	SAY("fallocate of who reads", fallocate(fd, 0, 0, 5));
	SAY("ftruncate of who reads", ftruncate(fd, 5));
	SAY("write of who reads", write(fd, "x", 1));
	SAY("seek to data", lseek(fd, 0, SEEK_DATA));
	SAY("seek to data at the end", lseek(fd, 6, SEEK_DATA));
	other = open("copy", O_CREAT | O_RDWR, 0644);
	SAY("copy_file_range", copy_file_range(fd, NULL, other, NULL, 100, 0));
	SAY("sendfile", (lseek(fd, 0, SEEK_SET), sendfile(other, fd, NULL, 100)));
	SAY("splice to a pipe", (lseek(fd, 0, SEEK_SET), pipe(pipes), splice(fd, NULL, pipes[1], NULL, 100, 0)));
	SAY("splice to a file", splice(pipes[0], NULL, other, NULL, 100, 0));
	SAY("copy onto itself", copy_file_range(other, &(loff_t){ 0 }, other, &(loff_t){ 1 }, 5, 0));
	SAY("size of the copy", (fstat(other, &status), status.st_size));
	close(fd), close(other);
	getrlimit(RLIMIT_FSIZE, &unlimited);
	signal(SIGXFSZ, SIG_IGN);
	fd = open("limited", O_CREAT | O_RDWR, 0644);
	if (fork() == 0) {
		setrlimit(RLIMIT_FSIZE, &limit);
		SAY("a write beyond the limit of size", write(fd, text, 3000));
		SAY("one at the limit", write(fd, text, 10));
		SAY("truncate beyond the limit", ftruncate(fd, 5000));
		exit(0);
	}
	wait(NULL);
	close(fd);
	fd = open("gone", O_CREAT | O_RDWR, 0644);
	SAY("unlink an open file", (pwrite(fd, "still", 5, 0), unlink("gone")));
	SAY("its links", (fstat(fd, &status), status.st_nlink));
	SAY("read it", pread(fd, byte, 8, 0));
	SAY("ftruncate it", ftruncate(fd, 2));
	SAY("fchmod it", fchmod(fd, 0600));
	SAY("fchown it", fchown(fd, 3, 4));
	SAY("its times", futimens(fd, NULL));
	SAY("its size", (fstat(fd, &status), status.st_size));
	printf("%o %d %d\n", status.st_mode, status.st_uid, status.st_gid);
	close(fd);
	mkdir("removed", 0755);
	fd = open("removed", O_RDONLY);
	SAY("rmdir an open folder", rmdir("removed"));
	SAY("make a file in it", openat(fd, "x", O_CREAT | O_RDWR, 0644));
	SAY("its links", (fstat(fd, &status), status.st_nlink));
	close(fd);
}

/* Names of attributes without those that the file system keeps to itself. */
static void attributes(void)
{
	char name[300] = "user.", value[2000];

	make("attributes", "x", 0644);
	SAY("an attribute", setxattr("attributes", "user.a", "1", 1, 0));
	SAY("make one that is there", setxattr("attributes", "user.a", "1", 1, XATTR_CREATE));
	SAY("replace one that is not", setxattr("attributes", "user.b", "1", 1, XATTR_REPLACE));
	SAY("an empty one", setxattr("attributes", "user.e", "", 0, 0));
	SAY("its length", getxattr("attributes", "user.e", value, 100));
	SAY("one that is not there", getxattr("attributes", "user.n", value, 100));
	SAY("a length", getxattr("attributes", "user.a", value, 0));
	SAY("too little room", (setxattr("attributes", "user.l", "12345", 5, 0), getxattr("attributes", "user.l", value, 2)));
	SAY("a value of 65537 bytes", setxattr("attributes", "user.k", text, 65537, 0));
	SAY("of a namespace that is none", setxattr("attributes", "foo", "1", 1, 0));
	SAY("a name without an end", setxattr("attributes", "user.", "1", 1, 0));
	memset(name + 5, 'n', 251);
	SAY("a name of 256 bytes", setxattr("attributes", name, "1", 1, 0));
	SAY("remove", removexattr("attributes", "user.a"));
	SAY("remove again", removexattr("attributes", "user.a"));
	SAY("of a symbolic link", (symlink("attributes", "attributelink"), lsetxattr("attributelink", "user.a", "1", 1, 0)));
	SAY("of a FIFO", (mkfifo("attributefifo", 0644), setxattr("attributefifo", "user.a", "1", 1, 0)));
}

static int truncated(const char *path) { return truncate(path, 1); }
static int written(const char *path) { return write(open(path, O_WRONLY), "x", 1); }
static int emptied(const char *path) { return opens(path, O_WRONLY | O_TRUNC, 0); }
static int given(const char *path) { return chown(path, -1, getgid()); }
static int allocated(const char *path) { return fallocate(open(path, O_WRONLY), 0, 0, 8192); }
static int punched(const char *path) { return fallocate(open(path, O_WRONLY), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096); }
static int touched(const char *path) { return utimensat(AT_FDCWD, path, NULL, 0); }
static int changed(const char *path) { return chmod(path, 06777); }
static int marked(const char *path) { return setxattr(path, "user.s", "1", 1, 0); }
static int copied(const char *path) { return copy_file_range(open("io", O_RDONLY), NULL, open(path, O_WRONLY), NULL, 3, 0); }

static int mapped(const char *path)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(path, O_RDWR), 0);

	if (page == MAP_FAILED)
		return -1;
	page[0] = 'z';
	return msync(page, 4096, MS_SYNC);
}

/* What becomes of the set-id bits when root, the owner, and members and strangers of the group change a file. */
static void bits(void)
{
	static const struct {
		const char *name;
		int (*change)(const char *path);
	} changes[] = {
		{ "truncate", truncated }, { "write", written }, { "O_TRUNC", emptied }, { "chown", given }, { "fallocate", allocated }, { "punch a hole", punched },
		{ "touch", touched }, { "chmod", changed }, { "setxattr", marked }, { "copy_file_range", copied }, { "mmap", mapped },
	};
	static const int modes[] = { 06777, 02767, 02777 };
	static const int users[][2] = { { 0, 0 }, { 1000, 1000 }, { 1001, 1001 }, { 1001, 1000 } };

	for (unsigned i = 0; i < sizeof changes / sizeof *changes; i++)
		for (unsigned j = 0; j < 3; j++)
			for (unsigned k = 0; k < 4; k++) {
				make("bits", "hello world", 0777);
				if (chown("bits", 1000, 1000) < 0)
					perror("chown");
				chmod("bits", modes[j]);
				if (fork() == 0) {
					if (setgroups(0, NULL) < 0 || setgid(users[k][1]) < 0 || setuid(users[k][0]) < 0)
						perror("setuid");
					printf("%s of %o by %d:%d ", changes[i].name, modes[j], users[k][0], users[k][1]);
					SAY("", changes[i].change("bits"));
					exit(0);
				}
				wait(NULL);
				printf("%o\n", of("bits").st_mode & 07777);
				unlink("bits");
			}
}

/* Files of a folder with the set-group-id bit, by a member of its group, by a stranger, and by root. */
static void groups(void)
{
	static const int users[][2] = { { 1000, 3000 }, { 1000, 2000 }, { 0, 0 } };

	mkdir("group", 0777);
	if (chown("group", 0, 3000) < 0)
		perror("chown");
	chmod("group", 02777);
	for (int i = 0; i < 3; i++) {
		char file[20], folder[20];

		snprintf(file, sizeof file, "group/f%d", i), snprintf(folder, sizeof folder, "group/d%d", i);
		if (fork() == 0) {
			gid_t group = users[i][1];

			if (setgroups(1, &group) < 0 || setgid(users[i][0]) < 0 || setuid(users[i][0]) < 0)
				perror("setuid");
			umask(0);
			SAY("a file", opens(file, O_CREAT | O_RDWR, 02755));
			SAY("a folder", mkdir(folder, 0755));
			SAY("chmod g+s", chmod(file, 02755));
			exit(0);
		}
		wait(NULL);
		printf("%o %d %o %d\n", of(file).st_mode, of(file).st_gid, of(folder).st_mode, of(folder).st_gid);
	}
}

static void sockets(void)
{
	struct sockaddr_un first = { .sun_family = AF_UNIX, .sun_path = "socket" }, second = { .sun_family = AF_UNIX, .sun_path = "moved" };
	struct sockaddr_un third = { .sun_family = AF_UNIX, .sun_path = "linked" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	SAY("bind", bind(fd, (void *)&first, sizeof first));
	SAY("listen", listen(fd, 16));
	SAY("bind to a name that is there", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&first, sizeof first));
	SAY("connect", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&first, sizeof first));
	SAY("connect after a rename", (rename("socket", "moved"), connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&second, sizeof second)));
	SAY("connect by a link", (link("moved", "linked"), connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&third, sizeof third)));
	SAY("open a socket", opens("moved", O_RDWR, 0));
	close(fd);
	SAY("connect when nobody listens", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&second, sizeof second));
}

int main(int argc, char **argv)
{
	if (argc != 2 || chdir(argv[1]) < 0)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0);
	chmod(".", 0777);
	umask(022);
	names();
	times();
	contents();
	attributes();
	sockets();
	groups();
	bits();
	return 0;
}
