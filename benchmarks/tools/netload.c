/* Load on a network between two ends, and what came through.
 * usage: netload drive ADDRESS PORT SECONDS   waits there for the other end, runs every measurement, prints "NAME VALUE" lines
 *        netload serve ADDRESS PORT           the other end: connects there and does what it is told
 *        netload init                         the same as a guest's first process; the kernel's command line has
 *                                             netload=OWN-ADDRESS,ADDRESS,PORT. Resets the machine at the end.
 * Rates are what the receiver got. UDP: 18 bytes of payload, the least frame; no pacing, what is too much is dropped. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 256 << 10, SMALL = 18, BATCH = 64, PINGS = 1 << 20 };
enum command { TCP_TO_DRIVER = 'u', TCP_TO_PEER = 'd', UDP_TO_DRIVER = 'U', UDP_TO_PEER = 'D', ECHO = 'e', END = 'x' };
struct order { uint32_t command, milliseconds; };
struct result { uint64_t count, nanoseconds; };
static char buffer[BUFFER];

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static long check(long result, const char *what)
{
    if (result < 0)
        die(what);
    return result;
}

static void transfer(int fd, void *data, size_t length, int out)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = out ? send(fd, (char *)data + done, length - done, MSG_NOSIGNAL) : recv(fd, (char *)data + done, length - done, 0);
        if (n <= 0)
            die(out ? "send" : "recv");
        done += n;
    }
}

static int stream(struct sockaddr_in *address, int listening)
{
    int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listening) {
        check(bind(fd, (void *)address, sizeof *address), "bind");
        check(listen(fd, 4), "listen");
        return fd;
    }
    /* The other end may not be there yet. */
    for (int i = 0; connect(fd, (void *)address, sizeof *address) < 0; i++) {
        if (i == 200)
            die("connect");
        close(fd);
        usleep(50000);
        fd = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static struct result tcp_send(int fd, unsigned milliseconds)
{
    uint64_t begin = now(), end = begin + milliseconds * 1000000ull, bytes = 0;
    while (now() < end) {
        ssize_t n = send(fd, buffer, BUFFER, MSG_NOSIGNAL);
        if (n <= 0)
            die("send");
        bytes += n;
    }
    shutdown(fd, SHUT_WR);
    return (struct result) { bytes, now() - begin };
}

static struct result tcp_receive(int fd)
{
    uint64_t begin = 0, bytes = 0;
    ssize_t n;
    while ((n = recv(fd, buffer, BUFFER, 0)) > 0) {
        if (!begin)
            begin = now();
        bytes += n;
    }
    return (struct result) { bytes, now() - begin };
}

static struct result udp_send(int fd, unsigned milliseconds)
{
    struct iovec vector = { buffer, SMALL };
    struct mmsghdr messages[BATCH] = { 0 };
    for (int i = 0; i < BATCH; i++)
        messages[i].msg_hdr = (struct msghdr) { .msg_iov = &vector, .msg_iovlen = 1 };
    uint64_t begin = now(), end = begin + milliseconds * 1000000ull, packets = 0;
    while (now() < end) {
        int n = sendmmsg(fd, messages, BATCH, 0);
        if (n < 0 && errno != ENOBUFS && errno != ECONNREFUSED)
            die("sendmmsg");
        packets += n > 0 ? n : 0;
    }
    return (struct result) { packets, now() - begin };
}

/* From the first packet on; ends when none came for 300 ms. */
static struct result udp_receive(int fd)
{
    static char packets[BATCH][64];
    struct iovec vectors[BATCH];
    struct mmsghdr messages[BATCH] = { 0 };
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec) { packets[i], sizeof packets[i] };
        messages[i].msg_hdr = (struct msghdr) { .msg_iov = &vectors[i], .msg_iovlen = 1 };
    }
    uint64_t begin = 0, last = 0, count = 0;
    struct pollfd p = { fd, POLLIN, 0 };
    while (poll(&p, 1, begin ? 300 : 5000) > 0) {
        int n;
        while ((n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL)) > 0) {
            last = now();
            if (!begin)
                begin = last;
            else
                count += n;
        }
    }
    return (struct result) { count, last - begin };
}

static int datagrams(struct sockaddr_in *own, struct sockaddr_in *other)
{
    int fd = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"), size = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    check(bind(fd, (void *)own, sizeof *own), "bind");
    check(connect(fd, (void *)other, sizeof *other), "connect");
    return fd;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void ping(int fd, unsigned milliseconds)
{
    uint32_t *times = malloc(PINGS * sizeof *times);
    uint64_t end = now() + milliseconds * 1000000ull;
    int count = 0, lost = 0;
    while (now() < end && count < PINGS) {
        uint64_t sent = now();
        struct pollfd p = { fd, POLLIN, 0 };
        check(send(fd, buffer, SMALL, 0), "send");
        if (poll(&p, 1, 1000) <= 0) {
            lost++;
            continue;
        }
        check(recv(fd, buffer, SMALL, 0), "recv");
        times[count++] = now() - sent;
    }
    if (!count)
        die("no echo");
    qsort(times, count, sizeof *times, compare);
    printf("round-trip-us %.2f\nround-trip-least-us %.2f\nround-trips-lost %d\n", times[count / 2] / 1e3, times[0] / 1e3, lost);
}

static void order(int control, enum command command, unsigned milliseconds)
{
    struct order o = { command, milliseconds };
    transfer(control, &o, sizeof o, 1);
}

static void drive(struct sockaddr_in *address, unsigned milliseconds)
{
    int listener = stream(address, 1), one = 1;
    struct pollfd p = { listener, POLLIN, 0 };
    if (poll(&p, 1, 60000) <= 0)
        die("the other end did not come");
    struct sockaddr_in other;
    socklen_t length = sizeof other;
    int control = check(accept(listener, (void *)&other, &length), "accept");
    setsockopt(control, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    printf("connected 1\n");
    for (int down = 0; down <= 1; down++) {
        order(control, down ? TCP_TO_PEER : TCP_TO_DRIVER, milliseconds);
        int fd = check(accept(listener, NULL, NULL), "accept");
        struct result r = down ? tcp_send(fd, milliseconds) : tcp_receive(fd), its;
        transfer(control, &its, sizeof its, 0);
        r = down ? its : r;
        printf("tcp-%s-guest-gbit %.4f\n", down ? "to" : "from", r.count * 8.0 / r.nanoseconds);
        close(fd);
    }
    other.sin_port = address->sin_port;
    int fd = datagrams(address, &other);
    for (int down = 0; down <= 1; down++) {
        order(control, down ? UDP_TO_PEER : UDP_TO_DRIVER, milliseconds);
        struct result r, its;
        if (down) {
            transfer(control, &its, sizeof its, 0);
            udp_send(fd, milliseconds);
            transfer(control, &its, sizeof its, 0);
            r = its;
        } else {
            r = udp_receive(fd);
            transfer(control, &its, sizeof its, 0);
        }
        printf("udp-%s-guest-kpps %.3f\n", down ? "to" : "from", r.count * 1e6 / r.nanoseconds);
    }
    order(control, ECHO, milliseconds);
    struct result ready;
    transfer(control, &ready, sizeof ready, 0);
    ping(fd, milliseconds);

    /* Who reads these lines looks at the other end's process, which ends with this order. */
    usleep(300000);
    order(control, END, 0);
}

static void serve(struct sockaddr_in *address)
{
    int control = stream(address, 0);
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    getsockname(control, (void *)&own, &length);
    own.sin_port = address->sin_port;
    int fd = datagrams(&own, address);
    for (struct order o;;) {
        struct result r = { 0 };
        transfer(control, &o, sizeof o, 0);
        int tcp = o.command == TCP_TO_DRIVER || o.command == TCP_TO_PEER ? stream(address, 0) : -1;
        switch (o.command) {
        case TCP_TO_DRIVER: r = tcp_send(tcp, o.milliseconds); break;
        case TCP_TO_PEER: r = tcp_receive(tcp); break;
        case UDP_TO_DRIVER: r = udp_send(fd, o.milliseconds); break;
        case UDP_TO_PEER:
            transfer(control, &r, sizeof r, 1);
            r = udp_receive(fd);
            break;
        case ECHO:
            transfer(control, &r, sizeof r, 1);
            for (struct pollfd p[2] = { { fd, POLLIN, 0 }, { control, POLLIN, 0 } };;) {
                ssize_t n = recv(fd, buffer, SMALL, MSG_DONTWAIT);
                if (n > 0)
                    send(fd, buffer, n, 0);
                else if (poll(p, 2, -1) > 0 && p[1].revents)
                    break;
            }
            continue;
        default:
            return;
        }
        transfer(control, &r, sizeof r, 1);
        if (tcp >= 0)
            close(tcp);
    }
}

static void resolve(struct sockaddr_in *address, const char *host, const char *port)
{
    *address = (struct sockaddr_in) { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    if (inet_pton(AF_INET, host, &address->sin_addr) != 1)
        die(host);
}

static void configure(const char *own)
{
    int fd = check(socket(AF_INET, SOCK_DGRAM, 0), "socket");
    struct ifreq request = { .ifr_name = "eth0" };
    resolve((void *)&request.ifr_addr, own, "0");
    check(ioctl(fd, SIOCSIFADDR, &request), "SIOCSIFADDR eth0");
    resolve((void *)&request.ifr_addr, "255.255.255.0", "0");
    check(ioctl(fd, SIOCSIFNETMASK, &request), "SIOCSIFNETMASK eth0");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    check(ioctl(fd, SIOCSIFFLAGS, &request), "SIOCSIFFLAGS eth0");
    close(fd);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 5 && !strcmp(argv[1], "drive")) {
        resolve(&address, argv[2], argv[3]);
        drive(&address, atof(argv[4]) * 1000);
        return 0;
    }
    if (argc == 4 && !strcmp(argv[1], "serve")) {
        resolve(&address, argv[2], argv[3]);
        serve(&address);
        return 0;
    }
    if (getpid() != 1) {
        fprintf(stderr, "usage: netload drive ADDRESS PORT SECONDS | serve ADDRESS PORT\n");
        return 2;
    }
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; console >= 0 && fd < 3; fd++)
        dup2(console, fd);
    char own[64], host[64], port[16];
    const char *given = getenv("netload");
    if (!given || sscanf(given, "%63[^,],%63[^,],%15s", own, host, port) != 3)
        die("netload= is missing on the kernel's command line");
    configure(own);
    resolve(&address, host, port);
    serve(&address);
    reboot(LINUX_REBOOT_CMD_RESTART);
}
