/*
 * An agent that lies, as the guest's init: serves the host's calls and streams as "attack=..." of the kernel's command line
 * says. What is no lie is done as the real agent does it (agent.proto): ttrpc on port 1024, streams on 1025, ready at 1024 of
 * the host.
 */
#define _GNU_SOURCE
#include <linux/vm_sockets.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SERVICE = 1024, STREAMS = 1025, RESPONSE = 2, CALL_LIMIT = 1 << 20 };

static const char *attack;
static int started;
static unsigned char request[CALL_LIMIT];
static unsigned char big[3 << 20];

static int is(const char *name) { return !strcmp(attack, name); }

static int vsock(unsigned cid, unsigned port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0 || (cid == VMADDR_CID_ANY ? bind(fd, (void *)&address, sizeof(address)) || listen(fd, 8)
					     : connect(fd, (void *)&address, sizeof(address))))
		perror("vsock");
	return fd;
}

static void put(int fd, const void *bytes, size_t length)
{
	for (const char *p = bytes; length;) {
		ssize_t n = write(fd, p, length);
		if (n <= 0)
			pause();
		p += n;
		length -= n;
	}
}

static int take(int fd, unsigned char *bytes, size_t length)
{
	for (ssize_t n; length; bytes += n, length -= n)
		if ((n = read(fd, bytes, length)) <= 0)
			return 0;
	return 1;
}

static void flood(int fd, const void *bytes, size_t length)
{
	for (;;)
		put(fd, bytes, length);
}

static void big_endian(unsigned char *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = v >> (24 - 8 * i);
}

static void frame(int fd, uint32_t length, uint32_t stream, int type, const void *payload, size_t bytes)
{
	unsigned char header[10] = { 0 };

	big_endian(header, length);
	big_endian(header + 4, stream);
	header[8] = type;
	put(fd, header, sizeof(header));
	put(fd, payload, bytes);
}

/* A field of bytes in protobuf's form before what is in "big" already, from its byte 16 on. */
static size_t wrap(int field, size_t length, unsigned char **start)
{
	unsigned char head[8];
	size_t n = 0;

	head[n++] = field << 3 | 2;
	for (size_t v = length; ; v >>= 7) {
		head[n++] = (v & 0x7f) | (v > 0x7f ? 0x80 : 0);
		if (v <= 0x7f)
			break;
	}
	*start -= n;
	memcpy(*start, head, n);
	return length + n;
}

static void *stream(void *fd)
{
	char line[4096];

	memset(line, 'x', sizeof(line));
	if (is("output"))
		flood((int)(intptr_t)fd, line, sizeof(line));
	pause();
	return NULL;
}

static void *streams(void *listener)
{
	for (;;) {
		pthread_t thread;
		int fd = accept((int)(intptr_t)listener, NULL, NULL);
		pthread_create(&thread, NULL, stream, (void *)(intptr_t)fd);
	}
	return NULL;
}

static void answer(int fd, uint32_t call, int waiting, int starting)
{
	static const unsigned char ok[] = { 0x12, 0x00 };
	static const unsigned char exited[] = { 0x12, 0x02, 0x08, 0x00 };
	static const unsigned char impossible[] = { 0x12, 0x0d, 0x08, 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x10, 0x13 };
	unsigned char *start = big + 32;
	size_t length = sizeof(big) - 64;

	if (is("mute") || (is("later") && (started || waiting)) || (is("immortal") && waiting))
		return;
	started |= starting;
	if (is("oversized")) {
		frame(fd, 0xfffffff0, call, RESPONSE, ok, 0);
		flood(fd, big, sizeof(big));
	}
	if (is("stream"))
		frame(fd, 2, call + 2, RESPONSE, ok, 2);
	if (is("type"))
		frame(fd, 2, call, 3, ok, 2);
	if (is("garbage")) {
		memset(big, 0xa5, sizeof(big));
		flood(fd, big, sizeof(big));
	}
	if (is("malformed"))
		frame(fd, 3, call, RESPONSE, "\x12\xff\xff", 3);
	if (is("status")) {
		memset(start, 0x1b, length);
		memcpy(start, "no such luck", 12);
		length = wrap(2, length, &start);
		*--start = 2;
		*--start = 1 << 3;
		length = wrap(1, length + 2, &start);
		frame(fd, length, call, RESPONSE, start, length);
	}
	if (is("end") && waiting)
		frame(fd, sizeof(impossible), call, RESPONSE, impossible, sizeof(impossible));
	else if (is("chatter") && waiting)
		return; /* comes before StartContainer or after it */
	else if (is("chatter") && starting) {
		length = wrap(2, length, &start);
		for (int i = 1; ; i++) {
			frame(fd, length, 1, RESPONSE, start, length);
			if (i == 10)
				puts("sent 30 MB");
		}
	} else if (waiting)
		frame(fd, sizeof(exited), call, RESPONSE, exited, sizeof(exited));
	else
		frame(fd, sizeof(ok), call, RESPONSE, ok, sizeof(ok));
}

int main(void)
{
	int service = vsock(VMADDR_CID_ANY, SERVICE);
	int listener = vsock(VMADDR_CID_ANY, STREAMS);
	unsigned char header[10];
	pthread_t thread;

	attack = getenv("attack");
	if (!attack)
		attack = "mute";
	pthread_create(&thread, NULL, streams, (void *)(intptr_t)listener);
	close(vsock(VMADDR_CID_HOST, SERVICE));
	for (;;) {
		int fd = accept(service, NULL, NULL);
		while (take(fd, header, sizeof(header))) {
			uint32_t length = header[0] << 24 | header[1] << 16 | header[2] << 8 | header[3];
			uint32_t call = header[4] << 24 | header[5] << 16 | header[6] << 8 | header[7];
			if (length > sizeof(request) || !take(fd, request, length))
				break;
			answer(fd, call, memmem(request, length, "WaitProcess", 11) != NULL, memmem(request, length, "StartContainer", 14) != NULL);
		}
		close(fd);
	}
}
