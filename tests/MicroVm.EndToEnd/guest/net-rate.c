/*
 * Measures how fast datagrams get through, by the clock of whoever runs `flood` or `meter`: the host.
 *
 *	report PORT                             in the container: tells the sender how many have come, until it is killed
 *	flood HOST PORT BYTES RATE SKIP COUNT   sends RATE datagrams a second to `report`
 *	meter PORT SKIP COUNT                   receives what `send` sends
 *	send HOST PORT BYTES RATE               in the container: sends RATE datagrams a second, until it is killed
 *
 * After SKIP datagrams (the burst) COUNT are timed. `flood` and `meter` print datagrams a second, as they came.
 */
#include "net.h"
#include <poll.h>

enum { EVERY = 10 };

static char data[65536];

/* The time when a number of datagrams had come, and the end when all have. */
static void count_to(unsigned long came, unsigned long skip, unsigned long count)
{
	static double begin;
	static unsigned long first;

	if (!first && came >= skip) {
		begin = now();
		first = came;
	} else if (first && came >= first + count) {
		printf("%.3f\n", (came - first) / (now() - begin));
		exit(0);
	}
}

static void pace(double *next, int rate)
{
	double ahead = *next - now();

	*next += 1.0 / rate;
	if (ahead > 0) {
		struct timespec t = { .tv_nsec = ahead * 1e9 };

		nanosleep(&t, NULL);
	} else if (ahead < -0.5) {
		/* Stopped for long: what was missed is not made up for. */
		*next = now();
	}
}

static void report(const char *port)
{
	int fd = bind_port(SOCK_DGRAM, port);
	unsigned long came = 0;

	option(fd, SOL_SOCKET, SO_RCVBUF, 1 << 20);
	printf("reporting\n");
	fflush(stdout);
	for (;;) {
		union address from;
		socklen_t length = sizeof from;

		if (recvfrom(fd, data, sizeof data, 0, &from.any, &length) >= 0 && ++came % EVERY == 0)
			sendto(fd, &came, sizeof came, 0, &from.any, length);
	}
}

static void flood(const char *host, const char *port, int bytes, int rate, unsigned long skip, unsigned long count)
{
	int fd = connect_to(SOCK_DGRAM, host, port);
	double next = now(), end = next + 120;
	unsigned long before = 0;

	while (now() < end) {
		unsigned long came;

		pace(&next, rate);
		send(fd, data, bytes, 0);
		while (recv(fd, &came, sizeof came, MSG_DONTWAIT) == sizeof came) {
			if (!before)
				before = came;
			count_to(came - before, skip, count);
		}
	}
	die("the datagrams did not come");
}

static void meter(const char *port, unsigned long skip, unsigned long count)
{
	int fd = bind_port(SOCK_DGRAM, port);

	option(fd, SOL_SOCKET, SO_RCVBUF, 1 << 20);
	for (unsigned long came = 1; recv(fd, data, sizeof data, 0) >= 0; came++)
		count_to(came, skip, count);
	die("recv");
}

static void send_on(const char *host, const char *port, int bytes, int rate)
{
	int fd = connect_to(SOCK_DGRAM, host, port);
	double next = now();

	for (;;) {
		pace(&next, rate);
		send(fd, data, bytes, 0);
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "report"))
		report(argv[2]);
	else if (argc == 8 && !strcmp(argv[1], "flood"))
		flood(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]), atol(argv[6]), atol(argv[7]));
	else if (argc == 5 && !strcmp(argv[1], "meter"))
		meter(argv[2], atol(argv[3]), atol(argv[4]));
	else if (argc == 6 && !strcmp(argv[1], "send"))
		send_on(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
	else
		return 2;
	return 0;
}
