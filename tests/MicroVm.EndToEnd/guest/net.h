/* What the network programs share: sockets by numeric address, deadlines, and an end that says why. */
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
	int error = errno;
	va_list arguments;

	va_start(arguments, format);
	vprintf(format, arguments);
	printf(": %s\n", error ? strerrorname_np(error) : "no error of the kernel's");
	exit(1);
}

static inline socklen_t length_of(const union address *a)
{
	return a->any.sa_family == AF_INET ? sizeof a->v4 : sizeof a->v6;
}

static inline union address parse(const char *text, const char *port)
{
	union address a = { 0 };

	if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(atoi(port));
	} else if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(atoi(port));
	} else {
		die("%s is no address", text);
	}
	return a;
}

static inline void option(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof value))
		die("setsockopt %d %d", level, name);
}

/* A socket, not connected; what it waits for comes within a minute or is an error. */
static inline int open_socket(int family, int type)
{
	struct timeval limit = { .tv_sec = 60 };
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	return fd;
}

/* Bound to a port of all addresses, of IPv4 and IPv6. */
static inline int bind_port(int type, const char *port)
{
	union address a = { .v6 = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(port)) } };
	int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (bind(fd, &a.any, sizeof a.v6))
		die("bind to port %s", port);
	return fd;
}

static inline int connect_to(int type, const char *host, const char *port)
{
	union address a = parse(host, port);
	int fd = open_socket(a.any.sa_family, type);

	if (connect(fd, &a.any, length_of(&a)))
		die("connect to %s port %s", host, port);
	return fd;
}

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}
