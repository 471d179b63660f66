/*
 * Runs as a container's process: every way out of its file systems. Arguments: the host's path of a file that is shown to no
 * container, and what it holds. /v and /w are volumes, the file is beside the folder that /v is. Tells each way that led out,
 * and at the end how many were tried, and how many beside these while names changed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

static const char *path, *secret;
static volatile int racing = 1, tries;

static void led(const char *way) { printf("ESCAPE %s\n", way); fflush(stdout); }

/* Reads what a path leads to from a directory: it must not be the secret. */
static void look(int at, const char *way)
{
	char text[4096];
	int fd = openat(at, way, O_RDONLY | O_NONBLOCK);

	__atomic_add_fetch(&tries, 1, __ATOMIC_RELAXED);
	if (fd < 0)
		return;
	ssize_t n = read(fd, text, sizeof(text));
	if (n > 0 && memmem(text, n, secret, strlen(secret)))
		led(way);
	close(fd);
}

static void refused(const char *what, int result)
{
	tries++;
	if (result >= 0)
		led(what);
}

static void links(void)
{
	static const char *const prefixes[] = {
		"", "/abs/../..", "/up", "/v/up", "/v/dirup", "/v/..", "/v/../..", "/v/../../../../../../../../..", "/proc/self/root", "/proc/1/root", "/proc/1/cwd",
		"/proc/self/root/..", "/v/up/up/up/up", "/w/../v/dirup", "/proc/self/task/1/root", "/v/self", "/v/self/..",
	};
	static const char *const ends[] = { "", "/../secret", "/up/secret", "/out", "/dirup/secret", "/../../secret" };
	char way[8192];
	int v = open("/v", O_RDONLY | O_DIRECTORY), w = open("/v", O_PATH);

	symlink("/proc/self/cwd", "/v/self");
	symlink(path, "/v/made");
	symlink("../../../../../../../../..", "/v/long");
	look(AT_FDCWD, "/abs");
	look(AT_FDCWD, "/rel");
	look(AT_FDCWD, "/v/made");
	look(AT_FDCWD, "/v/out");
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		snprintf(way, sizeof(way), "%s%s", prefixes[i], path);
		look(AT_FDCWD, way);
		for (size_t k = 0; k < sizeof(ends) / sizeof(ends[0]); k++) {
			snprintf(way, sizeof(way), "%s%s", prefixes[i], ends[k]);
			look(AT_FDCWD, way);
		}
	}
	for (size_t k = 0; k < sizeof(ends) / sizeof(ends[0]); k++) {
		look(v, ends[k] + (*ends[k] == '/'));
		snprintf(way, sizeof(way), "/proc/self/fd/%d%s", w, ends[k]);
		look(AT_FDCWD, way);
		snprintf(way, sizeof(way), "/proc/self/fd/%d/long%s", v, path);
		look(AT_FDCWD, way);
	}
}

static void files(void)
{
	struct { struct file_handle h; unsigned char bytes[64]; } handle;
	int v = open("/v", O_RDONLY | O_DIRECTORY), mount_id;

	/* Hard links and renames stay in their export; the host makes no devices. */
	refused("hard link of the secret", linkat(AT_FDCWD, "/v/out", AT_FDCWD, "/v/hard", AT_SYMLINK_FOLLOW));
	refused("hard link to another volume", link("/v/f", "/w/f"));
	refused("rename to another volume", rename("/v/d", "/w/d"));
	refused("rename over the volume's root", rename("/v/d", "/v"));
	/* Nodes are made, for the guest's kernel; the test looks at what they are on the host. */
	refused("block device", mknod("/v/block", S_IFBLK | 0666, makedev(8, 0)) < 0 ? -1 : open("/v/block", O_RDONLY | O_NONBLOCK));
	mknod("/v/mem", S_IFCHR | 0666, makedev(1, 1));
	refused("write to a read-only volume", open("/ro/made", O_CREAT | O_WRONLY, 0666));
	refused("removal from a read-only volume", unlink("/ro/f"));
	refused("mount of the host's path", mount(path, "/mnt", NULL, MS_BIND, NULL));

	/* Forged handles: node ids that this process was never given. */
	memset(&handle, 0, sizeof(handle));
	handle.h.handle_bytes = 64;
	if (!name_to_handle_at(v, "f", &handle.h, &mount_id, 0))
		for (uint64_t node = 0; node < 64; node++) {
			memcpy(handle.bytes, &node, sizeof(node));
			int fd = open_by_handle_at(v, &handle.h, O_RDONLY);
			tries++;
			if (fd >= 0) {
				look(fd, "");
				look(fd, "secret");
				look(fd, "../secret");
				close(fd);
			}
		}

	/* The device once more, beside the runtime's own mount of it: its root and what is above. */
	if (!mount("microvm", "/mnt", "virtiofs", 0, NULL)) {
		look(AT_FDCWD, "/mnt/secret");
		look(AT_FDCWD, "/mnt/../secret");
		look(AT_FDCWD, "/mnt/rootfs/../secret");
		look(AT_FDCWD, "/mnt/mount1/../secret");
		refused("file in the device's root", open("/mnt/made", O_CREAT | O_WRONLY, 0666));
		refused("rename across exports", rename("/mnt/rootfs/bin", "/mnt/mount1/bin"));
		refused("removal of an export", rmdir("/mnt/mount1"));
		umount("/mnt");
	}
}

/* Names change their meaning while another thread walks through them: a directory for a link, a directory's place. */
static void *swap(void *unused)
{
	while (racing) {
		syscall(SYS_renameat2, AT_FDCWD, "/v/x", AT_FDCWD, "/v/up", 2);
		syscall(SYS_renameat2, AT_FDCWD, "/v/x", AT_FDCWD, "/v/dirup", 2);
		rename("/v/a/b", "/v/c");
		rename("/v/c", "/v/a/b");
	}
	return unused;
}

static void *walk(void *unused)
{
	char way[8192];
	int held = open("/v/a/b", O_RDONLY | O_DIRECTORY);

	snprintf(way, sizeof(way), "/v/x%s", path);
	while (racing) {
		look(AT_FDCWD, "/v/x/secret");
		look(AT_FDCWD, way);
		look(AT_FDCWD, "/v/a/b/../../../secret");
		look(held, "../../secret");
		look(held, "../../../secret");
		look(held, "../secret");
	}
	return unused;
}

int main(int count, char **arguments)
{
	pthread_t threads[3];

	if (count != 3)
		return 2;
	path = arguments[1];
	secret = arguments[2];
	links();
	files();
	int still = tries;
	mkdir("/v/x", 0777);
	mkdir("/v/a", 0777);
	mkdir("/v/a/b", 0777);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, i ? walk : swap, NULL);
	/* For two seconds; where all of it is emulated, until there were some hundreds of attempts. */
	for (int seconds = 0; seconds < 2 || (seconds < 60 && tries < still + 100); seconds++)
		sleep(1);
	racing = 0;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("tried %d, and %d\n", still, tries - still);
	return 0;
}
