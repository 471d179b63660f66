/* One host folder at /all/sub and at /part: whether both are one set of inodes. Prints "name=answer" lines. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, const char *answer)
{
    printf("%s=%s\n", name, answer);
    fflush(stdout);
}

static void sockets_and_fifos(void)
{
    struct sockaddr_un all = { AF_UNIX, "/all/sub/s" }, part = { AF_UNIX, "/part/s" };
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(server, (void *)&all, sizeof all) || listen(server, 5))
        say("bind", strerror(errno));
    say("socket", connect(client, (void *)&part, sizeof part) ? strerror(errno) : "connected");

    char buffer[8] = { 0 };
    mkfifo("/all/sub/p", 0666);
    int reader = open("/all/sub/p", O_RDONLY | O_NONBLOCK), writer = open("/part/p", O_WRONLY | O_NONBLOCK);
    say("fifo", writer >= 0 && write(writer, "hi", 2) == 2 && read(reader, buffer, 2) == 2 ? "passed" : "lost");
}

static void locks(void)
{
    int first = open("/all/sub/l", O_RDWR), second = open("/part/l", O_RDWR);
    flock(first, LOCK_EX | LOCK_NB);
    say("flock", flock(second, LOCK_EX | LOCK_NB) ? "busy" : "got");

    int ready[2], done[2];
    char byte;
    pipe(ready);
    pipe(done);
    struct flock lock = { .l_type = F_WRLCK };
    if (!fork()) {
        fcntl(open("/all/sub/l", O_RDWR), F_SETLK, &lock);
        write(ready[1], "r", 1);
        read(done[0], &byte, 1);
        _exit(0);
    }
    read(ready[0], &byte, 1);
    say("fcntl", fcntl(second, F_SETLK, &lock) ? "busy" : "got");
    write(done[1], "d", 1);
    wait(NULL);
}

static void contents(void)
{
    struct stat s;
    char buffer[32] = { 0 };
    int first = open("/all/sub/f", O_RDWR), second = open("/part/f", O_RDWR);
    char *a = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, first, 0);
    volatile char *b = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, second, 0);
    char before = b[0];
    a[0] = 'X';
    say("mapping", before == '0' && b[0] == 'X' ? "one" : "two");
    stat("/part/f", &s);
    write(open("/all/sub/f", O_WRONLY | O_APPEND), "more", 4);
    stat("/part/f", &s);
    snprintf(buffer, sizeof buffer, "%ld", (long)s.st_size);
    say("size", buffer);
    memset(buffer, 0, sizeof buffer);
    pread(second, buffer, 4, 11);
    say("read", buffer);
}

static void names(void)
{
    struct stat before, after;
    stat("/part/f", &before);
    say("renamed", rename("/all/sub/f", "/all/g") ? strerror(errno) : "yes");
    stat("/all/g", &after);
    say("inode", before.st_ino == after.st_ino ? "same" : "other");
    say("old", access("/part/f", F_OK) ? "gone" : "there");
    say("linked", link("/all/g", "/all/sub/h") ? strerror(errno) : "yes");
    unlink("/all/sub/h");
    say("unlinked", access("/part/h", F_OK) ? "gone" : "there");
}

int main(void)
{
    sockets_and_fifos();
    locks();
    contents();
    names();
    return 0;
}
