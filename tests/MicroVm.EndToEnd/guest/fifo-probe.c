/* Says what the two ends of a FIFO do, line by line: open(2) with and without waiting, read(2), write(2), poll(2), ends, signals, and
 * whether records of at most PIPE_BUF bytes stay whole. usage: fifo-probe FIFO */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WRITERS 4
#define RECORDS 100
#define RECORD 4000

static const char *path;
static volatile sig_atomic_t pipes, alarms;

static void on_signal(int signal)
{
    if (signal == SIGPIPE)
        pipes++;
    else
        alarms++;
}

static const char *error(long result)
{
    static char text[32];
    if (result < 0)
        return strerrorname_np(errno);
    snprintf(text, sizeof text, "%ld", result);
    return text;
}

static int ready(int fd, short events, int milliseconds)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, milliseconds) < 0 ? -1 : p.revents;
}

static pid_t child(void (*work)(void))
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        work();
        _exit(0);
    }
    return pid;
}

static void write_later(void)
{
    int fd = open(path, O_WRONLY);
    usleep(300000);
    if (write(fd, "later", 5) != 5)
        _exit(1);
    usleep(300000);
}

static void wait_for_ever(void) { _exit(open(path, O_RDONLY) >= 0); }

static void write_records(void)
{
    char record[RECORD];
    int fd = open(path, O_WRONLY);
    for (int i = 0; i < RECORDS; i++) {
        memset(record, (int)(getpid() % 96) + 32, sizeof record);
        if (write(fd, record, sizeof record) != RECORD)
            _exit(1);
    }
}

static void open_and_ends(void)
{
    char buffer[65536];
    printf("writer without reader: %s\n", error(open(path, O_WRONLY | O_NONBLOCK)));
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    printf("read without writer: %s\n", error(read(reader, buffer, 5)));
    int writer = open(path, O_WRONLY | O_NONBLOCK);
    printf("read of nothing: %s", error(read(reader, buffer, 5)));
    printf(", poll %x, writer %x\n", ready(reader, POLLIN, 0), ready(writer, POLLOUT, 0));
    printf("write: %s", error(write(writer, "hello", 5)));
    printf(", poll %x", ready(reader, POLLIN, 0));
    printf(", read %s\n", error(read(reader, buffer, 100)));
    struct stat s;
    printf("fifo %d", fstat(reader, &s) == 0 && S_ISFIFO(s.st_mode));
    printf(", lseek %s", error(lseek(reader, 0, SEEK_SET)));
    printf(", pread %s\n", error(pread(reader, buffer, 1, 0)));

    long total = 0, n;
    memset(buffer, 'x', sizeof buffer);
    while ((n = write(writer, buffer, 4096)) > 0)
        total += n;
    printf("full after %ld: %s", total, error(n));
    printf(", poll %x", ready(writer, POLLOUT, 0));
    printf(", read %s", error(read(reader, buffer, 8192)));
    printf(", poll %x\n", ready(writer, POLLOUT, 0));
    close(writer);
    printf("writer gone: poll %x", ready(reader, POLLIN, 0));
    for (total = 0; (n = read(reader, buffer, sizeof buffer)) > 0; total += n)
        ;
    printf(", rest %ld, end %s, poll %x\n", total, error(n), ready(reader, POLLIN, 0));
    writer = open(path, O_WRONLY);
    close(reader);
    printf("reader gone: %s, ", error(write(writer, "x", 1)));
    printf("signals %d\n", (int)pipes);
    close(writer);
    int both = open(path, O_RDWR);
    printf("both ends: write %s", error(write(both, "own", 3)));
    printf(", read %s\n", error(read(both, buffer, 10)));
    close(both);
}

static void waiting(void)
{
    char buffer[64];
    pid_t pid = child(write_later);
    int fd = open(path, O_RDONLY);
    printf("poll waits: %x", ready(fd, POLLIN, -1));
    printf(", read %s", error(read(fd, buffer, sizeof buffer)));
    printf(", read waits for the end: %s\n", error(read(fd, buffer, sizeof buffer)));
    waitpid(pid, NULL, 0);
    close(fd);

    pid = child(write_later);
    fd = open(path, O_RDONLY);
    int set = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN | EPOLLET}, found;
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &e);
    printf("epoll waits: %d", epoll_wait(set, &found, 1, -1));
    printf(", %x", found.events);
    printf(", read %s", error(read(fd, buffer, sizeof buffer)));
    printf(", end %d", epoll_wait(set, &found, 1, -1));
    printf(", %x\n", found.events);
    waitpid(pid, NULL, 0);
    close(set);
    close(fd);

    alarm(1);
    int result = open(path, O_RDONLY);
    printf("open interrupted: %s, ", error(result));
    printf("%d\n", (int)alarms);
    fd = open(path, O_RDWR);
    alarm(1);
    printf("read interrupted: %s", error(read(fd, buffer, 1)));
    printf(", %d\n", (int)alarms);
    close(fd);

    int status;
    pid = child(wait_for_ever);
    usleep(300000);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    printf("open killed: %d\n", WTERMSIG(status));
    printf("nobody is left: %s\n", error(open(path, O_WRONLY | O_NONBLOCK)));
}

static void records(void)
{
    pid_t writers[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        writers[i] = child(write_records);
    int fd = open(path, O_RDWR), whole = 0, failed = 0;
    char record[RECORD];
    for (int i = 0; i < WRITERS * RECORDS; i++) {
        int length = 0;
        ssize_t n;
        while (length < RECORD && (n = read(fd, record + length, (size_t)(RECORD - length))) > 0)
            length += (int)n;
        whole += length == RECORD && memcmp(record, record + 1, RECORD - 1) == 0;
    }
    close(fd);
    for (int i = 0; i < WRITERS; i++) {
        int status;
        waitpid(writers[i], &status, 0);
        failed += status != 0;
    }
    printf("%d records whole, %d failures\n", whole, failed);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    path = argv[1];
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    open_and_ends();
    waiting();
    records();
    return 0;
}
