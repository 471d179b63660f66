// Touches anonymous memory and says how many page faults that took.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { page = 4096 };

static long faults(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_minflt;
}

static char *reserve(size_t pages) {
    char *p = mmap(0, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    return p;
}

// Pages of a range that are there, by mincore(2).
static long present(char *p, size_t pages) {
    unsigned char *there = malloc(pages);
    long n = 0;
    if (mincore(p, pages * page, there))
        exit(1);
    for (size_t i = 0; i < pages; i++)
        n += there[i] & 1;
    free(there);
    return n;
}

// row COUNT ADVICE: one page after another.
static void row(char **a) {
    long count = atol(a[0]);
    char *p = reserve(count);
    if (!strcmp(a[1], "locked") && mlock2(p, count * page, MLOCK_ONFAULT))
        exit(1);
    if (!strcmp(a[1], "random") && madvise(p, count * page, MADV_RANDOM))
        exit(1);
    long before = faults();
    for (long i = 0; i < count; i++)
        p[i * page] = 1;
    printf("%ld faults\n", faults() - before);
}

// sparse COUNT STRIDE: one page of each STRIDE.
static void sparse(char **a) {
    long count = atol(a[0]), stride = atol(a[1]);
    char *p = reserve(count * stride);
    for (long i = 0; i < count; i++)
        p[i * stride * page] = 1;
    printf("%ld pages\n", present(p, count * stride));
}

// edges: what lies beside a touched page stays what it was, and is each process's own.
static void edges(char **a) {
    char *p = reserve(64);
    munmap(p + 16 * page, page);
    mprotect(p + 20 * page, page, PROT_READ);
    memset(p + 8 * page, 'x', page);
    for (int i = 0; i < 16; i++)
        p[i * page + 1] = p[i * page] == 'x' ? 'x' : p[i * page] ? '?' : 'o';
    if (mincore(p + 16 * page, page, (unsigned char[1]){ 0 }) == 0)
        printf("the hole is mapped\n");
    if (!fork()) {
        for (int i = 0; i < 16; i++)
            p[i * page + 1] = 'c';
        _exit(0);
    }
    wait(0);
    for (int i = 0; i < 16; i++)
        putchar(p[i * page + 1]);
    for (int i = 17; i < 64; i++)
        for (int k = 0; k < page; k++)
            if (p[i * page + k])
                printf("page %d is not zero\n", i);
    putchar('\n');
}

int main(int n, char **v) {
    static const struct { const char *name; int arguments; void (*run)(char **); } commands[] = {
        { "row", 2, row }, { "sparse", 2, sparse }, { "edges", 0, edges },
    };
    for (size_t i = 0; n > 1 && i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(v[1], commands[i].name) && n == 2 + commands[i].arguments) {
            commands[i].run(v + 2);
            return 0;
        }
    fprintf(stderr, "usage: touch-probe row|sparse|edges ...\n");
    return 2;
}
