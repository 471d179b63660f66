/*
 * What the network says of a way, as a program hears it.
 *
 *	refused HOST PORT        the error that a connected UDP socket gets
 *	expire HOST PORT HOPS    who reports that a datagram's hops are used up, and how
 *	mtu HOST PORT            what the kernel knows of the path's MTU
 *	lookup NAME              how many addresses the resolver finds, and the least
 */
#include "net.h"
#include <linux/errqueue.h>
#include <netdb.h>
#include <poll.h>

static void refused(const char *host, const char *port)
{
	char byte = 'x';
	int fd = connect_to(SOCK_DGRAM, host, port);

	if (send(fd, &byte, 1, 0) != 1)
		die("send");
	printf("%s\n", recv(fd, &byte, 1, 0) < 0 ? strerrorname_np(errno) : "an answer");
}

static void report(const struct sock_extended_err *e)
{
	const struct sockaddr *from = SO_EE_OFFENDER(e);
	char text[INET6_ADDRSTRLEN] = "?";

	if (from->sa_family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *)from)->sin_addr, text, sizeof text);
	else if (from->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)from)->sin6_addr, text, sizeof text);
	printf("type %d code %d of %s, %s\n", e->ee_type, e->ee_code, text, strerrorname_np(e->ee_errno));
}

static void expire(const char *host, const char *port, int hops)
{
	int v6 = strchr(host, ':') != NULL, fd = connect_to(SOCK_DGRAM, host, port);
	int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
	char data[512], control[512];
	struct iovec part = { data, sizeof data };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct pollfd wait = { .fd = fd };

	option(fd, level, v6 ? IPV6_RECVERR : IP_RECVERR, 1);
	option(fd, level, v6 ? IPV6_UNICAST_HOPS : IP_TTL, hops);
	if (send(fd, "x", 1, 0) != 1)
		die("send");
	if (poll(&wait, 1, 60000) != 1 || recvmsg(fd, &message, MSG_ERRQUEUE) < 0)
		die("no report");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
		if (c->cmsg_level == level && c->cmsg_type == (v6 ? IPV6_RECVERR : IP_RECVERR))
			report((struct sock_extended_err *)CMSG_DATA(c));
}

static void mtu(const char *host, const char *port)
{
	int value = 0, v6 = strchr(host, ':') != NULL, fd = connect_to(SOCK_DGRAM, host, port);
	socklen_t length = sizeof value;

	if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &value, &length))
		die("the MTU to %s", host);
	printf("%d\n", value);
}

static void lookup(const char *name)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
	char text[INET_ADDRSTRLEN];
	struct in_addr least = { INADDR_NONE };
	int count = 0, status = getaddrinfo(name, NULL, &hints, &found);

	if (status) {
		printf("%s: %s\n", name, gai_strerror(status));
		exit(1);
	}
	for (; found; found = found->ai_next, count++) {
		struct in_addr a = ((struct sockaddr_in *)found->ai_addr)->sin_addr;

		if (ntohl(a.s_addr) < ntohl(least.s_addr))
			least = a;
	}
	printf("%d addresses, from %s\n", count, inet_ntop(AF_INET, &least, text, sizeof text));
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "refused"))
		refused(argv[2], argv[3]);
	else if (argc == 5 && !strcmp(argv[1], "expire"))
		expire(argv[2], argv[3], atoi(argv[4]));
	else if (argc == 4 && !strcmp(argv[1], "mtu"))
		mtu(argv[2], argv[3]);
	else if (argc == 3 && !strcmp(argv[1], "lookup"))
		lookup(argv[2]);
	else
		return 2;
	return 0;
}
