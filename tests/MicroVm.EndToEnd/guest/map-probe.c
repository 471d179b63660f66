// Maps files shared and says what it sees; in containers and on the host.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { page = 4096, seconds = 120 };

static void fail(const char *what) {
    printf("%s: %s\n", what, strerrorname_np(errno));
    exit(1);
}

static volatile char *map(const char *path, int flags, size_t length) {
    int fd = open(path, flags);
    if (fd < 0)
        fail("open");
    struct stat s;
    if (fstat(fd, &s))
        fail("fstat");
    int protection = PROT_READ | ((flags & O_ACCMODE) == O_RDWR ? PROT_WRITE : 0);
    char *p = mmap(0, length ? length : s.st_size, protection, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        fail("mmap");
    close(fd);
    return p;
}

static size_t size_of(const char *path) {
    struct stat s;
    if (stat(path, &s))
        fail("stat");
    return s.st_size;
}

static void pause_briefly(void) {
    struct timespec t = { 0, 1000000 };
    nanosleep(&t, 0);
}

static void until(int (*done)(void *), void *what, const char *name) {
    time_t end = time(0) + seconds;
    while (!done(what)) {
        if (time(0) > end) {
            printf("no %s\n", name);
            exit(1);
        }
        pause_briefly();
    }
}

static int exists(void *path) { return !access(path, F_OK); }

struct expected { volatile char *at; char value; };
static int is(void *e) { return *((struct expected *)e)->at == ((struct expected *)e)->value; }

// put FILE OFFSET TEXT: writes through a mapping, and ends without msync(2).
static void put(char **a) {
    volatile char *p = map(a[0], O_RDWR, 0);
    size_t at = strtoul(a[1], 0, 0);
    for (size_t i = 0; a[2][i]; i++)
        p[at + i] = a[2][i];
}

// get FILE OFFSET LENGTH
static void get(char **a) {
    volatile char *p = map(a[0], O_RDONLY, 0);
    size_t at = strtoul(a[1], 0, 0), n = strtoul(a[2], 0, 0);
    for (size_t i = 0; i < n; i++)
        putchar(p[at + i] ? p[at + i] : '.');
    putchar('\n');
}

// turns FILE SELF OTHER TURNS: two take turns on two bytes of one page.
static void turns(char **a) {
    volatile char *p = map(a[0], O_RDWR, 0);
    int self = atoi(a[1]), other = atoi(a[2]), n = atoi(a[3]);
    for (int i = 1; i <= n; i++) {
        p[self] = i;
        struct expected e = { p + other, i };
        time_t end = time(0) + seconds;
        while (*e.at != e.value && *e.at != (char)(i + 1))
            if (time(0) > end) {
                printf("at turn %d the other is at %d\n", i, *e.at);
                exit(1);
            }
    }
    printf("took turns\n");
}

// stripes FILE SELF COUNT ROUNDS: adds to every COUNTth byte, from SELF on.
static void stripes(char **a) {
    size_t size = size_of(a[0]), self = strtoul(a[1], 0, 0), count = strtoul(a[2], 0, 0);
    volatile char *p = map(a[0], O_RDWR, 0);
    for (int round = atoi(a[3]); round; round--)
        for (size_t i = self; i < size; i += count)
            p[i]++;
    printf("added\n");
}

// rows LOG INDEX WRITER COUNT: as a write-ahead log does it: one byte of the index is locked, the row is written by write(2), and the
// index, which is mapped, tells where the next one goes. Readers of the index hold another lock.
static void rows(char **a) {
    int log = open(a[0], O_RDWR), index = open(a[1], O_RDWR);
    if (log < 0 || index < 0)
        fail("open");
    volatile unsigned long *p = mmap(0, page, PROT_READ | PROT_WRITE, MAP_SHARED, index, 0);
    if (p == MAP_FAILED)
        fail("mmap");
    for (int i = 0; i < atoi(a[3]); i++) {
        struct flock lock = { .l_type = F_WRLCK, .l_start = 120, .l_len = 1 };
        if (fcntl(index, F_SETLKW, &lock))
            fail("lock");
        char row[32];
        snprintf(row, sizeof row, "%8.8s %6d\n", a[2], i);
        if (pwrite(log, row, 16, p[0]) != 16)
            fail("pwrite");
        p[1] += 1;
        p[0] += 16;
        lock.l_type = F_UNLCK;
        if (fcntl(index, F_SETLK, &lock))
            fail("unlock");
    }
    printf("written\n");
}

// hold FILE CHAR: writes CHAR to a byte of each page and waits to be killed.
static void hold(char **a) {
    size_t size = size_of(a[0]);
    volatile char *p = map(a[0], O_RDWR, 0);
    for (size_t i = 7; i < size; i += page)
        p[i] = a[1][0];
    printf("written\n");
    fflush(stdout);
    pause();
}

// lost FILE: has four pages mapped; when FILE.cut is there, the file has lost three of them.
static void lost(char **a) {
    char cut[256], grown[256];
    snprintf(cut, sizeof cut, "%s.cut", a[0]);
    snprintf(grown, sizeof grown, "%s.grown", a[0]);
    volatile char *p = map(a[0], O_RDWR, 4 * page);
    for (int i = 0; i < 4; i++)
        if (p[i * page] != 'a' + i)
            printf("page %d: %d\n", i, p[i * page]);
    printf("mapped\n");
    fflush(stdout);
    until(exists, cut, "cut");
    printf("kept %c, lost %d", p[0], p[2 * page]);
    p[2 * page] = 'x';
    p[0] = 'A';
    printf(" and changed\n");
    fflush(stdout);
    until(exists, grown, "growth");
    int fd = open(a[0], O_RDWR);
    struct stat s;
    if (fstat(fd, &s))
        fail("fstat");
    struct expected e = { p + 2 * page, 'C' };
    until(is, &e, "new page");
    printf("grown to %ld, %c%c\n", (long)s.st_size, p[0], p[2 * page]);
}

// large FILE: touches a byte of each 2 MiB, twice.
static void large(char **a) {
    size_t size = size_of(a[0]), n = 0;
    volatile char *p = map(a[0], O_RDWR, 0);
    for (size_t i = 0; i < size; i += 2 << 20)
        p[i + 9] = 1 + (i >> 21) % 100;
    for (size_t i = 0; i < size; i += 2 << 20)
        n += p[i + 9] == (char)(1 + (i >> 21) % 100);
    printf("%zu pieces\n", n);
}

// many FOLDER COUNT: that many files, all mapped at once.
static void many(char **a) {
    int count = atoi(a[1]), good = 0;
    volatile char *p[count];
    char path[256];
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%d", a[0], i);
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || ftruncate(fd, page))
            fail(path);
        p[i] = mmap(0, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p[i] == MAP_FAILED)
            fail("mmap");
        close(fd);
        p[i][i % page] = 'm';
    }
    for (int i = 0; i < count; i++)
        good += p[i][i % page] == 'm';
    printf("%d files\n", good);
}

// views FILE: what read(2), write(2), a private mapping and a shared one make of one file, whichever came first.
static void views(char **a) {
    char b[8] = "";
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, "0123456789", 10) != 10)
        fail("write");
    char *private = mmap(0, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    printf("%.4s", private);
    private[9] = 'P';
    if (pread(fd, b, 4, 0) != 4)
        fail("pread");
    char *shared = mmap(0, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    memcpy(shared, "abcd", 4);
    if (pread(fd, b, 4, 0) != 4)
        fail("pread");
    printf(" %s %.4s%c", b, private, private[9]);
    if (pwrite(fd, "WXYZ", 4, 4) != 4)
        fail("pwrite");
    printf(" %.10s %.3s\n", shared, private + 4);
    if (shared[10] || lseek(fd, 0, SEEK_END) != 10)
        printf("the end moved\n");
}

// buffers MAPPED PLAIN: system calls whose buffers are in a mapping.
static void buffers(char **a) {
    int fd = open(a[1], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0644);
    if (fd < 0)
        fail("open");
    volatile char *p = map(a[0], O_RDWR, 2 * page);
    p[0] = 'b';
    p[page - 1] = 'e';
    if (write(fd, (void *)p, page) != page)
        fail("write");
    if (pread(fd, (void *)(p + page), page, 0) != page)
        fail("pread");
    printf("%c%c\n", p[page], p[2 * page - 1]);
}

static sigjmp_buf after_bus;
static void on_bus(int signal) {
    (void)signal;
    siglongjmp(after_bus, 1);
}

// churn FOLDER FILES ROUNDS: maps files that others cut, punch and replace meanwhile; a page that a file has lost is SIGBUS, or zeros.
static void churn(char **a) {
    enum { pages = 600, touches = 100 };
    struct sigaction action = { .sa_handler = on_bus, .sa_flags = SA_NODEFER };
    sigaction(SIGBUS, &action, 0);
    volatile int wrong = 0;
    for (volatile int round = 0; round < atoi(a[2]); round++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%d", a[0], round % atoi(a[1]));
        int fd = open(path, O_RDWR);
        if (fd < 0)
            continue; // ESTALE: it was replaced just now
        volatile char *p = mmap(0, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            fail("mmap");
        close(fd);
        for (volatile int i = 0; i < touches; i++) {
            if (sigsetjmp(after_bus, 1))
                continue;
            volatile char *at = p + (size_t)(rand() % pages) * page;
            wrong += *at && *at != 'h' && *at != 'g';
            *at = 'g';
        }
        munmap((void *)p, pages * page);
    }
    printf("churned, %d wrong\n", wrong);
}

int main(int n, char **v) {
    static const struct { const char *name; int arguments; void (*run)(char **); } commands[] = {
        { "put", 3, put }, { "get", 3, get }, { "turns", 4, turns }, { "stripes", 4, stripes }, { "rows", 4, rows }, { "hold", 2, hold },
        { "lost", 1, lost }, { "large", 1, large }, { "many", 2, many }, { "views", 1, views }, { "buffers", 2, buffers },
        { "churn", 3, churn },
    };
    for (size_t i = 0; n > 1 && i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(v[1], commands[i].name) && n == 2 + commands[i].arguments) {
            commands[i].run(v + 2);
            return 0;
        }
    fprintf(stderr, "usage: map-probe put|get|turns|stripes|rows|hold|lost|large|many|views|buffers|churn ...\n");
    return 2;
}
