// inotify(7) for a shell: watch-probe EVENTS PATH [COMMAND...] prints a line for each event, its letter and its name, and runs the
// command. EVENTS are letters: c modified, e attributes, w closed after writing, n made, d removed, m moved away, y moved here,
// D itself removed, M itself moved; O is printed when events were lost. "ready" is the first line.
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct { char letter; unsigned mask; } events[] = {
	{ 'c', IN_MODIFY }, { 'e', IN_ATTRIB }, { 'w', IN_CLOSE_WRITE }, { 'n', IN_CREATE }, { 'd', IN_DELETE },
	{ 'm', IN_MOVED_FROM }, { 'y', IN_MOVED_TO }, { 'D', IN_DELETE_SELF }, { 'M', IN_MOVE_SELF },
	{ 'O', IN_Q_OVERFLOW },
};

int main(int argc, char **argv)
{
	char buffer[4096] __attribute__((aligned(8)));
	unsigned mask = 0;
	int fd = inotify_init1(0);

	if (argc < 3)
		return 2;
	for (size_t i = 0; i < sizeof events / sizeof *events; i++)
		if (strchr(argv[1], events[i].letter))
			mask |= events[i].mask;
	if (fd < 0 || inotify_add_watch(fd, argv[2], mask) < 0) {
		perror(argv[2]);
		return 1;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		ssize_t n = read(fd, buffer, sizeof buffer);
		if (n <= 0)
			return 1;
		for (char *p = buffer; p < buffer + n;) {
			struct inotify_event *e = (struct inotify_event *)p;
			p += sizeof *e + e->len;
			for (size_t i = 0; i < sizeof events / sizeof *events; i++)
				if (e->mask & events[i].mask)
					printf("%c %s\n", events[i].letter, e->len ? e->name : ".");
			fflush(stdout);
			if (argc > 3 && !fork()) {
				execv(argv[3], argv + 3);
				_exit(127);
			}
			if (argc > 3)
				wait(NULL);
		}
	}
}
