/*
 * A peer of Unix stream sockets, for both sides of a mounted one.
 *
 *	unix-peer connect PATH    sends standard input, ends its side, and prints what comes until the other ends its own
 *	unix-peer echo PATH       listens, says "ready", and sends back what each connection sends, to its end, one after the other
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[65536];

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

static int move(int from, int to)
{
	for (ssize_t n; (n = read(from, buffer, sizeof buffer)) != 0;) {
		if (n < 0)
			return -1;
		for (ssize_t done = 0, w; done < n; done += w)
			if ((w = write(to, buffer + done, n - done)) < 0)
				return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	if (argc != 3 || strlen(argv[2]) >= sizeof address.sun_path)
		return 2;
	strcpy(address.sun_path, argv[2]);
	if (strcmp(argv[1], "connect") == 0) {
		if (connect(s, (void *)&address, sizeof address) < 0)
			return fail("connect");
		if (move(0, s) < 0 || shutdown(s, SHUT_WR) < 0)
			return fail("send");
		return move(s, 1) < 0 ? fail("receive") : 0;
	}
	if (bind(s, (void *)&address, sizeof address) < 0 || chmod(argv[2], 0777) < 0 || listen(s, 16) < 0)
		return fail("listen");
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int c = accept(s, 0, 0);

		if (c < 0)
			return fail("accept");
		move(c, c);
		close(c);
	}
}
