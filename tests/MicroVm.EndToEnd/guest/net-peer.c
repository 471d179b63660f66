/*
 * Client and server of the network tests: the same program in a container and in a network namespace of the host.
 *
 *	serve PORT                    TCP and UDP, IPv4 and IPv6, until it is killed
 *	get|put HOST PORT BYTES       a stream of random bytes and its SHA-256, from the server or to it
 *	short HOST PORT N PARALLEL    N connections of one line each
 *	datagrams HOST PORT N BYTES   one after the other, back and forth; may not be fragmented
 *	whoami HOST PORT [SOURCE]     the address that the server sees
 *
 * Each client prints one line and exits with 1 when anything but what was expected came.
 */
#include "net.h"
#include "sha256.h"
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/random.h>

enum { CHUNK = 256 << 10, DIGITS = 64, SERVERS = 32 };

struct stream {
	uint64_t state;
	struct sha256 sum;
	uint8_t *chunk;
};

static void start(struct stream *s)
{
	if (getrandom(&s->state, sizeof s->state, 0) != sizeof s->state)
		die("getrandom");
	s->state |= 1;
	sha256_start(&s->sum);
	s->chunk = malloc(CHUNK);
}

static int write_all(int fd, const void *data, size_t n)
{
	while (n) {
		ssize_t done = send(fd, data, n, MSG_NOSIGNAL);

		if (done <= 0)
			return -1;
		data = (const char *)data + done;
		n -= done;
	}
	return 0;
}

/* Up to n bytes, fewer only at the stream's end. */
static ssize_t read_all(int fd, void *data, size_t n)
{
	size_t got = 0;

	while (got < n) {
		ssize_t done = read(fd, (char *)data + got, n - got);

		if (done < 0)
			return -1;
		if (!done)
			break;
		got += done;
	}
	return got;
}

static int send_random(int fd, uint64_t bytes, char *digits)
{
	struct stream s;
	int failed = 0;

	start(&s);
	while (bytes && !failed) {
		size_t n = bytes < CHUNK ? bytes : CHUNK;

		for (size_t i = 0; i < CHUNK; i += 8) {
			s.state ^= s.state << 13;
			s.state ^= s.state >> 7;
			s.state ^= s.state << 17;
			memcpy(s.chunk + i, &s.state, 8);
		}
		sha256_add(&s.sum, s.chunk, n);
		failed = write_all(fd, s.chunk, n);
		bytes -= n;
	}
	free(s.chunk);
	sha256_end(&s.sum, digits);
	return failed;
}

/* Reads up to `bytes`; how many came. */
static uint64_t sum_up(int fd, uint64_t bytes, char *digits)
{
	struct stream s;
	uint64_t got = 0;

	start(&s);
	while (got < bytes) {
		ssize_t n = read(fd, s.chunk, bytes - got < CHUNK ? bytes - got : CHUNK);

		if (n <= 0)
			break;
		sha256_add(&s.sum, s.chunk, n);
		got += n;
	}
	free(s.chunk);
	sha256_end(&s.sum, digits);
	return got;
}

/* The first line, without its end, and nothing of what follows it; its length. */
static size_t read_line(int fd, char *line, size_t size)
{
	for (ssize_t last = 0, n; (n = recv(fd, line, size - 1, MSG_PEEK)) > last; last = n) {
		char *end = memchr(line, '\n', n);

		if (end) {
			read_all(fd, line, end + 1 - line);
			*end = 0;
			return end - line;
		}
	}
	*line = 0;
	return 0;
}

static void answer(int fd, const union address *from)
{
	char line[DIGITS + 64], digits[DIGITS + 1];
	size_t n = read_line(fd, line, sizeof line);

	if (!strncmp(line, "get ", 4)) {
		if (!send_random(fd, strtoull(line + 4, 0, 10), digits))
			write_all(fd, digits, DIGITS);
	} else if (!strcmp(line, "put")) {
		uint64_t got = sum_up(fd, UINT64_MAX, digits);

		write_all(fd, line, sprintf(line, "%lu %s\n", got, digits));
	} else if (!strncmp(line, "echo ", 5)) {
		line[n] = '\n';
		write_all(fd, line, n + 1);
	} else if (!strcmp(line, "whoami")) {
		struct in6_addr a = from->v6.sin6_addr;
		char text[INET6_ADDRSTRLEN];

		if (IN6_IS_ADDR_V4MAPPED(&a))
			inet_ntop(AF_INET, a.s6_addr + 12, text, sizeof text);
		else
			inet_ntop(AF_INET6, &a, text, sizeof text);
		write_all(fd, text, strlen(text));
	}
}

static void *accept_all(void *listener)
{
	for (;;) {
		union address from;
		socklen_t length = sizeof from;
		int fd = accept4(*(int *)listener, &from.any, &length, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		answer(fd, &from);
		close(fd);
	}
	return NULL;
}

/* From the address that the datagram was sent to, wherever the way back leads. */
static void echo_datagrams(int fd)
{
	static char data[65536];
	char control[256];
	union address from;

	option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	for (;;) {
		struct iovec part = { data, sizeof data };
		struct msghdr message = { &from, sizeof from, &part, 1, control, sizeof control, 0 };
		ssize_t n = recvmsg(fd, &message, 0);

		if (n < 0)
			continue;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
			if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
				((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_ifindex = 0;
		part.iov_len = n;
		sendmsg(fd, &message, 0);
	}
}

static void serve(const char *port)
{
	static int listener;
	int datagrams = bind_port(SOCK_DGRAM, port);
	pthread_t thread;

	listener = bind_port(SOCK_STREAM, port);
	if (listen(listener, 1024))
		die("listen");
	for (int i = 0; i < SERVERS; i++)
		if (pthread_create(&thread, NULL, accept_all, &listener))
			die("pthread_create");
	printf("serving\n");
	fflush(stdout);
	echo_datagrams(datagrams);
}

static int segment_size(int fd)
{
	int size = 0;
	socklen_t length = sizeof size;

	getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &size, &length);
	return size;
}

static void stream(const char *which, const char *host, const char *port, uint64_t bytes)
{
	char request[64], own[DIGITS + 1], its[DIGITS + 1] = "";
	int fd = connect_to(SOCK_STREAM, host, port), size;
	unsigned long got;
	double begin = now();

	if (*which == 'g') {
		write_all(fd, request, sprintf(request, "get %lu\n", bytes));
		got = sum_up(fd, bytes, own);
		read_all(fd, its, DIGITS);
		size = segment_size(fd);
	} else {
		char reply[DIGITS + 64] = "";

		write_all(fd, "put\n", 4);
		if (send_random(fd, bytes, own))
			die("sent less than %lu bytes", bytes);
		size = segment_size(fd);
		shutdown(fd, SHUT_WR);
		if (read_all(fd, reply, sizeof reply - 1) < 0 || sscanf(reply, "%lu %64s", &got, its) != 2)
			die("no answer to %lu bytes", bytes);
	}
	errno = 0;
	if (got != bytes || strcmp(own, its))
		die("%s: %lu of %lu bytes came; sums %s and %s", which, got, bytes, own, its);
	printf("%s %lu bytes, sums equal, segments of %d, %.1f s\n", which, bytes, size, now() - begin);
}

struct caller {
	pthread_t thread;
	const char *host, *port;
	int first, count, lost;
};

static void *call(void *argument)
{
	struct caller *c = argument;

	for (int i = 0; i < c->count; i++) {
		char line[64], reply[64] = "";
		int n = sprintf(line, "echo %d of many\n", c->first + i);
		int fd = connect_to(SOCK_STREAM, c->host, c->port);

		if (write_all(fd, line, n) || read_all(fd, reply, sizeof reply - 1) != n || strcmp(line, reply))
			c->lost++;
		close(fd);
	}
	return NULL;
}

static void connect_often(const char *host, const char *port, int count, int parallel)
{
	struct caller callers[64] = { 0 };
	int lost = 0;

	if (parallel > 64)
		parallel = 64;
	for (int i = 0; i < parallel; i++) {
		int first = i * count / parallel;

		callers[i] = (struct caller){ 0, host, port, first, (i + 1) * count / parallel - first, 0 };
		if (pthread_create(&callers[i].thread, NULL, call, &callers[i]))
			die("pthread_create");
	}
	for (int i = 0; i < parallel; i++) {
		pthread_join(callers[i].thread, NULL);
		lost += callers[i].lost;
	}
	printf("%d connections, %d lost\n", count, lost);
	exit(lost ? 1 : 0);
}

static void exchange(const char *host, const char *port, int count, int bytes)
{
	static unsigned char sent[65536], came[65536];
	int fd = connect_to(SOCK_DGRAM, host, port), lost = 0;

	if (strchr(host, ':'))
		option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO);
	else
		option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
	for (int i = 0; i < count; i++) {
		ssize_t n;

		for (int k = 0; k < bytes; k++)
			sent[k] = i + k * 31;
		if (send(fd, sent, bytes, 0) != bytes)
			die("datagram of %d bytes", bytes);
		n = recv(fd, came, sizeof came, 0);
		if (n != bytes || memcmp(sent, came, bytes))
			lost++;
	}
	printf("%d datagrams of %d bytes, %d lost\n", count, bytes, lost);
	exit(lost ? 1 : 0);
}

static void who_am_i(const char *host, const char *port, const char *source)
{
	union address to = parse(host, port);
	char text[INET6_ADDRSTRLEN] = "";
	int fd = open_socket(to.any.sa_family, SOCK_STREAM);

	if (source) {
		union address from = parse(source, "0");

		if (bind(fd, &from.any, length_of(&from)))
			die("bind to %s", source);
	}
	if (connect(fd, &to.any, length_of(&to)) || write_all(fd, "whoami\n", 7) || read_all(fd, text, sizeof text - 1) <= 0)
		die("no answer from %s", host);
	printf("%s\n", text);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	else if (argc == 5 && (!strcmp(argv[1], "get") || !strcmp(argv[1], "put")))
		stream(argv[1], argv[2], argv[3], strtoull(argv[4], 0, 10));
	else if (argc == 6 && !strcmp(argv[1], "short"))
		connect_often(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
	else if (argc == 6 && !strcmp(argv[1], "datagrams"))
		exchange(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
	else if ((argc == 4 || argc == 5) && !strcmp(argv[1], "whoami"))
		who_am_i(argv[2], argv[3], argc == 5 ? argv[4] : NULL);
	else
		return 2;
	return 0;
}
