/*
 * fsx SEED COUNT FILE: so many random operations on a file, by read and write, mappings, truncation and fallocate, through two open
 * descriptors, each compared with what a model in memory says. Ends with "same after COUNT", or with the operation that differed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST (1 << 18)
#define PAGE 4096

static unsigned char model[2 * MOST], buffer[2 * MOST];
static long size;
static uint64_t state;
static int fds[2];

static uint32_t next(uint32_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 20) % bound;
}

static int differs(long operation, const char *what, long at, long length)
{
	printf("operation %ld, %s at %ld of %ld: %s\n", operation, what, at, length, strerror(errno));
	return 1;
}

static void fill(unsigned char *to, long length)
{
	for (long i = 0; i < length; i++)
		to[i] = 1 + next(255);
}

static void resize(long to)
{
	if (to < size)
		memset(model + to, 0, size - to);
	size = to;
}

/* A hole, zeros, or bytes taken out or put in, in whole pages; file systems that lack one of these refuse it. */
static int allocate(long operation, int fd)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
	};
	int mode = modes[next(6)];
	int whole = mode == FALLOC_FL_COLLAPSE_RANGE || mode == FALLOC_FL_INSERT_RANGE;
	long at = whole ? next(MOST / 2 / PAGE) * PAGE : next(MOST / 2);
	long length = whole ? (1 + next(4)) * PAGE : 1 + next(3 * PAGE);

	if (whole && (at + length >= size || (mode == FALLOC_FL_INSERT_RANGE && size + length > MOST)))
		return 0;
	if (fallocate(fd, mode, at, length) < 0)
		return errno == EOPNOTSUPP ? 0 : differs(operation, "fallocate", at, length);
	switch (mode) {
	case FALLOC_FL_COLLAPSE_RANGE:
		memmove(model + at, model + at + length, size - at - length);
		memset(model + size - length, 0, length);
		size -= length;
		return 0;
	case FALLOC_FL_INSERT_RANGE:
		memmove(model + at + length, model + at, size - at);
		memset(model + at, 0, length);
		size += length;
		return 0;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
		memset(model + at, 0, length);
	}
	if (mode != FALLOC_FL_KEEP_SIZE && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) && at + length > size)
		size = at + length;
	return 0;
}

static int map(long operation, int fd, int writes)
{
	long at, length;
	unsigned char *pages;
	int wrong;

	if (size == 0)
		return 0;
	at = next(size);
	length = 1 + next(size - at < 3 * PAGE ? size - at : 3 * PAGE);
	pages = mmap(NULL, size, PROT_READ | (writes ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (pages == MAP_FAILED)
		return differs(operation, "mmap", at, length);
	if (writes) {
		fill(pages + at, length);
		memcpy(model + at, pages + at, length);
		if (next(2))
			msync(pages, size, MS_SYNC);
	}
	wrong = memcmp(pages + at, model + at, length);
	munmap(pages, size);
	return wrong ? differs(operation, "a mapping", at, length) : 0;
}

static int operate(long operation)
{
	int fd = fds[next(2)];
	long at = next(MOST), length = 1 + next(3 * PAGE), expected;
	struct stat status;

	if (at + length > MOST)
		length = MOST - at;
	switch (next(10)) {
	case 0 ... 2:
		fill(buffer, length);
		if (pwrite(fd, buffer, length, at) != length)
			return differs(operation, "write", at, length);
		memcpy(model + at, buffer, length);
		if (at + length > size)
			size = at + length;
		return 0;
	case 3 ... 4:
		expected = at >= size ? 0 : size - at < length ? size - at : length;
		return pread(fd, buffer, length, at) != expected || memcmp(buffer, model + at, expected) ? differs(operation, "read", at, length) : 0;
	case 5:
		at = next(MOST);
		if (ftruncate(fd, at) < 0)
			return differs(operation, "truncate", at, 0);
		resize(at);
		return 0;
	case 6:
		return allocate(operation, fd);
	case 7:
		return map(operation, fd, 1);
	case 8:
		return map(operation, fd, 0);
	default:
		if (next(4) == 0 && fsync(fd) < 0)
			return differs(operation, "fsync", 0, 0);
		return fstat(fd, &status) < 0 || status.st_size != size ? differs(operation, "size", status.st_size, size) : 0;
	}
}

int main(int argc, char **argv)
{
	long count;

	if (argc != 4)
		return 2;
	state = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15 + 1;
	count = atol(argv[2]);
	for (int i = 0; i < 2; i++)
		if ((fds[i] = open(argv[3], O_RDWR | O_CREAT, 0644)) < 0)
			return differs(0, "open", i, 0);
	for (long i = 0; i < count; i++)
		if (operate(i))
			return 1;
	if (pread(fds[0], buffer, 2 * MOST, 0) != size || memcmp(buffer, model, size))
		return differs(count, "the whole", 0, size);
	printf("same after %ld\n", count);
	return 0;
}
