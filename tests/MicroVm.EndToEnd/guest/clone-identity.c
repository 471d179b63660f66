/*
 * clone-identity COUNT: what no two VMs of one template may have in common; a line each, "NAME VALUE". COUNT processes give their random
 * numbers, and a tenth as many connections their first sequence numbers, from the same ports in each VM. The first line is CLOCK_REALTIME in
 * nanoseconds, read by the first instructions.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void hex(const char *name, const unsigned char *bytes, int length)
{
	char text[80];
	for (int i = 0; i < length; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
	printf("%s %s\n", name, text);
}

static void file(const char *name, const char *path)
{
	char line[80];
	FILE *f = fopen(path, "r");
	if (!f || !fgets(line, sizeof line, f)) {
		perror(path);
		exit(1);
	}
	line[strcspn(line, "\n")] = 0;
	printf("%s %s\n", name, line);
	fclose(f);
}

static int connection(int port)
{
	struct sockaddr_in here = { AF_INET, htons(20000), { htonl(INADDR_LOOPBACK) }, { 0 } }, own = { AF_INET, htons(port), { htonl(INADDR_LOOPBACK) }, { 0 } };
	int on = 1, queue = TCP_SEND_QUEUE;
	uint32_t sequence;
	socklen_t length = sizeof sequence;
	static int listener;

	if (!listener) {
		listener = socket(AF_INET, SOCK_STREAM, 0);
		if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 100)) {
			perror("listen");
			return 1;
		}
	}
	int s = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(s, (struct sockaddr *)&own, sizeof own) || connect(s, (struct sockaddr *)&here, sizeof here) ||
	    setsockopt(s, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) || setsockopt(s, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue) ||
	    getsockopt(s, IPPROTO_TCP, TCP_QUEUE_SEQ, &sequence, &length)) {
		perror("connection");
		return 1;
	}
	printf("sequence %u\n", sequence);
	return 0;
}

int main(int argc, char **argv)
{
	struct timespec now;
	unsigned char bytes[16];
	int count;

	clock_gettime(CLOCK_REALTIME, &now);
	if (argc != 2)
		return 2;
	count = atoi(argv[1]);
	if (count == 0) {
		if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
			return 1;
		hex("getrandom", bytes, sizeof bytes);
		hex("auxv", (unsigned char *)getauxval(AT_RANDOM), 16);
		file("uuid", "/proc/sys/kernel/random/uuid");
		return 0;
	}
	printf("time %llu\n", now.tv_sec * 1000000000ull + now.tv_nsec);
	file("boot_id", "/proc/sys/kernel/random/boot_id");
	for (int i = 0; i < count / 10; i++)
		if (connection(30000 + i))
			return 1;
	fflush(stdout);
	for (int i = 0; i < count; i++) {
		int status;
		if (vfork() == 0) {
			execl("/proc/self/exe", argv[0], "0", NULL);
			_exit(1);
		}
		if (wait(&status) < 0 || status)
			return 1;
	}
	return 0;
}
