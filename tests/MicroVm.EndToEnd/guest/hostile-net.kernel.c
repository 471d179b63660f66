/* A guest that attacks its network interface, which it gets while it runs: two queue pairs and a control queue.
 *
 *  attack=frames  headers, sizes and sources that are wrong in one thing each, among frames that are right; then commands
 *  attack=rings   each rule of rings broken on each queue, with a right frame behind each; resets with frames under way
 *  attack=flood   all of that by chance without end, and frames that change while they are sent
 *
 * Says how much of what it sent is due to be dropped, and as what. */
#include "kernel.h"

enum { RNG, NET, DEVICES };  /* in the order of their windows */

#define QUEUES 5
#include "rings.h"

enum { RX, TX, RX1, TX1, CONTROL };
enum verdict { RIGHT, BAD_HEADER, BAD_SIZE, SPOOFED, VERDICTS };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4, OUTSIDE = 64 << 20, HEADER = 12, LINK = 14, LONGEST = 65557 };

struct header { uint8_t flags, gso; uint16_t length, gso_size, csum_start, csum_offset, buffers; };

static struct { struct header h; uint8_t frame[80000]; } packet __attribute__((aligned(4096)));
static const uint8_t mac[6] = { 2, 0, 0x5e, 0x10, 0, 1 };
static uint32_t sent[VERDICTS], refused, stopped, low, high;

static void tell(const char *what, uint32_t n)
{
    char digits[11], *d = digits + sizeof(digits) - 1;

    *d = 0;
    do
        *--d = '0' + n % 10;
    while (n /= 10);
    say(what);
    say(" ");
    say(d);
    say("\n");
}

static void start(void)
{
    uint32_t w = WINDOW(NET);

    while (!rd(w + 0x08))
        ;
    wr(w + 0x14, 1);
    high = rd(w + 0x10);
    wr(w + 0x14, 0);
    low = rd(w + 0x10) & ~(1u << 29);
    set_up(RNG);
}

/* Every feature but the event index. */
static void bring_up(void) { set_up_with(NET, low, high); }

/* To everybody, of an experimental protocol. */
static uint32_t plain(uint32_t length)
{
    packet.h = (struct header){ 0 };
    for (int i = 0; i < 6; i++) {
        packet.frame[i] = 0xff;
        packet.frame[6 + i] = mac[i];
    }
    for (int i = 12; i < 120; i++)
        packet.frame[i] = 0;
    packet.frame[12] = 0x88;
    packet.frame[13] = 0xb5;
    return HEADER + length;
}

/* A packet that the host is to cut into segments, its transport header behind the IP header. */
static uint32_t ipv4(uint8_t gso, uint8_t protocol, uint32_t transport, uint32_t payload, uint16_t segment)
{
    uint32_t total = 20 + transport + payload;
    uint8_t *f = packet.frame;

    plain(0);
    packet.h = (struct header){ 1, gso, 0, segment, 34, protocol == 6 ? 16 : 6, 0 };
    f[12] = 8;
    f[13] = 0;
    f[14] = 0x45;
    f[16] = total >> 8;
    f[17] = total;
    f[20] = 0x40;
    f[22] = 64;
    f[23] = protocol;
    f[26] = f[30] = 10;
    f[29] = 2;
    f[33] = 1;
    if (protocol == 6)
        f[46] = 0x50;
    return HEADER + LINK + total;
}

static uint32_t tcp4(uint32_t payload, uint16_t segment) { return ipv4(1, 6, 20, payload, segment); }

static uint32_t tcp6(uint32_t payload, uint16_t segment)
{
    uint8_t *f = packet.frame;

    plain(0);
    packet.h = (struct header){ 1, 4, 0, segment, 54, 16, 0 };
    f[12] = 0x86;
    f[13] = 0xdd;
    f[14] = 0x60;
    f[18] = (20 + payload) >> 8;
    f[19] = 20 + payload;
    f[20] = 6;
    f[21] = 64;
    f[22] = f[38] = 0xfd;
    f[37] = 2;
    f[53] = 1;
    f[66] = 0x50;
    return HEADER + LINK + 60 + payload;
}

/* Sends a chain whose descriptors are in the table. */
static void send_chain(enum verdict due)
{
    uint16_t before = used_index(NET, TX);

    offer(NET, TX, 0);
    if (answered(NET, TX, before))
        sent[due]++;
}

static void send(enum verdict due, uint32_t length)
{
    table[NET][TX][0] = (struct descriptor){ (uint32_t)&packet, length, 0, 0 };
    send_chain(due);
}

/* Sends a packet after a change; "n" is its length there. */
#define TRY(due, build, change) do { uint32_t n = build; change; send(due, n); } while (0)

static void headers(void)
{
    static const uint8_t kinds[] = { 2, 3, 4, 5, 6, 7, 0x20, 0x40, 0x7f, 0x80, 0x83, 0x84, 0x85, 0xff };
    static const uint16_t segments[] = { 0, 1, 7, 1461, 9000, 0xffff }, starts[] = { 0, 14, 33, 35, 54, 256, 0xffff };
    static const uint16_t offsets[] = { 0, 6, 15, 17, 0xffff }, lengths[] = { 14, 20, 33, 34, 35, 46, 47, 53 };
    static const uint8_t versions[] = { 0, 0x05, 0x40, 0x44, 0x46, 0x4f, 0x55, 0x65 }, protocols[] = { 0, 1, 17, 41, 255 };
    uint8_t *f = packet.frame;

#define EACH(list) for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++)
    EACH(kinds) TRY(BAD_HEADER, tcp4(3000, 1000), packet.h.gso = kinds[i]);
    EACH(segments) TRY(BAD_HEADER, tcp4(3000, 1000), packet.h.gso_size = segments[i]);
    EACH(starts) TRY(BAD_HEADER, tcp4(3000, 1000), packet.h.csum_start = starts[i]);
    EACH(offsets) TRY(BAD_HEADER, tcp4(3000, 1000), packet.h.csum_offset = offsets[i]);
    EACH(versions) TRY(BAD_HEADER, tcp4(3000, 1000), f[14] = versions[i]);
    EACH(protocols) TRY(BAD_HEADER, tcp4(3000, 1000), f[23] = protocols[i]);
    EACH(lengths) TRY(BAD_HEADER, tcp4(3000, 1000), n = HEADER + lengths[i]);
    TRY(RIGHT, tcp4(3000, 1460), );

    /* Segments without a checksum; a fragment; another protocol; tags without end; TCP headers that are short, or longer than all. */
    TRY(BAD_HEADER, tcp4(3000, 1000), packet.h.flags = 0);
    TRY(BAD_HEADER, tcp4(3000, 1000), packet.h.flags = 0xfe);
    TRY(BAD_HEADER, tcp4(3000, 1000), f[20] = 0x20);
    TRY(BAD_HEADER, tcp4(3000, 1000), f[21] = 1);
    TRY(BAD_HEADER, tcp4(3000, 1000), f[12] = 0x88);
    TRY(BAD_HEADER, tcp4(3000, 1000), (f[12] = 0x86, f[13] = 0xdd));
    TRY(BAD_HEADER, tcp4(3000, 1000), for (int i = 12; i < 120; i += 4) (f[i] = 0x81, f[i + 1] = 0));
    TRY(BAD_HEADER, tcp4(3000, 1000), f[46] = 0x40);
    TRY(BAD_HEADER, tcp4(39, 1000), f[46] = 0xf0);
    TRY(BAD_HEADER, ipv4(5, 17, 8, 2000, 8), );
    TRY(BAD_HEADER, ipv4(5, 6, 20, 2000, 1000), );

    /* IPv6: another version; an extension header that is a fragment's, is none, never ends, or ends elsewhere. */
    TRY(BAD_HEADER, tcp6(3000, 1000), packet.h.gso = 1);
    TRY(BAD_HEADER, tcp6(3000, 1000), packet.h.gso_size = 1441);
    EACH(versions) TRY(BAD_HEADER, tcp6(3000, 1000), f[14] = versions[i] == 0x65 ? 0x45 : versions[i]);
    TRY(BAD_HEADER, tcp6(3000, 1000), f[20] = 44);
    TRY(BAD_HEADER, tcp6(3000, 1000), f[20] = 59);
    TRY(BAD_HEADER, tcp6(3000, 1000), (f[20] = 0, f[66] = 0));
    TRY(BAD_HEADER, tcp6(3000, 1000), (f[20] = 0, f[54] = 6, f[55] = 255));
    TRY(BAD_HEADER, tcp6(3000, 1000), (f[20] = 60, f[54] = 6));
    TRY(RIGHT, tcp6(3000, 1440), );

    /* A checksum alone: before any IP header, and at and past the frame's end. */
    EACH(starts) if (starts[i] < 34 || starts[i] > 114)
        TRY(BAD_HEADER, tcp4(60, 0), (packet.h.gso = 0, packet.h.csum_start = starts[i]));
    TRY(BAD_HEADER, tcp4(60, 0), (packet.h.gso = 0, packet.h.csum_start = 97));
    TRY(BAD_HEADER, tcp4(60, 0), (packet.h.gso = 0, packet.h.csum_offset = 79));
    TRY(BAD_HEADER, tcp4(60, 0), (packet.h.gso = 0, packet.h.csum_start = packet.h.csum_offset = 0xffff));
    TRY(RIGHT, tcp4(60, 0), packet.h.gso = 0);

    /* What a device ignores, it does not pass on. */
    TRY(RIGHT, plain(60), (packet.h = (struct header){ 0xfe, 0, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff }));
    TRY(RIGHT, tcp4(3000, 1000), (packet.h.flags = 0xff, packet.h.length = packet.h.buffers = 0xffff));
}

static void sizes(void)
{
    static const uint32_t right[] = { 14, 60, 1514, 1522 }, wrong[] = { 1523, 9014, LONGEST, LONGEST + 1, sizeof(packet.frame) };
    static const uint32_t shorter[] = { 0, 1, 11, 12, 13, 25 };
    struct descriptor *t = table[NET][TX];

    EACH(right) TRY(RIGHT, plain(right[i]), );
    EACH(wrong) TRY(BAD_SIZE, plain(wrong[i]), );
    EACH(shorter) TRY(BAD_SIZE, plain(60), n = shorter[i]);
    TRY(RIGHT, tcp4(65495, 1460), );
    TRY(BAD_SIZE, tcp4(LONGEST + 1 - LINK - 40, 1460), );

    /* 600 MiB in one chain; nothing in many; a frame in many pieces; a receive buffer, and a frame with one behind it. */
    plain(60);
    for (int i = 0; i < SIZE; i++)
        t[i] = (struct descriptor){ 16 << 20, 40 << 20, i == SIZE - 1 ? 0 : NEXT, i + 1 };
    send_chain(BAD_SIZE);
    for (int i = 0; i < SIZE; i++)
        t[i] = (struct descriptor){ (uint32_t)&packet, 0, i == SIZE - 1 ? 0 : NEXT, i + 1 };
    send_chain(BAD_SIZE);
    for (int i = 0; i < SIZE; i++)
        t[i] = (struct descriptor){ (uint32_t)&packet + 3 * i, i == SIZE - 1 ? 72 - 3 * i : 3, i == SIZE - 1 ? 0 : NEXT, i + 1 };
    send_chain(RIGHT);
    packet.frame[6] ^= 1;
    send_chain(SPOOFED);
    t[0] = (struct descriptor){ (uint32_t)&packet, 72, WRITE, 0 };
    send_chain(BAD_SIZE);
    t[0] = (struct descriptor){ (uint32_t)&packet, 72, NEXT, 1 };
    t[1] = (struct descriptor){ (uint32_t)reply, 72, WRITE, 0 };
    send_chain(BAD_SIZE);
}

static void sources(void)
{
    for (int bit = 0; bit < 48; bit++)
        TRY(SPOOFED, plain(60), packet.frame[6 + bit / 8] ^= 1 << bit % 8);
    TRY(SPOOFED, plain(60), for (int i = 6; i < 12; i++) packet.frame[i] = 0);
    TRY(SPOOFED, plain(60), for (int i = 6; i < 12; i++) packet.frame[i] = 0xff);
    TRY(SPOOFED, tcp4(3000, 1000), packet.frame[11] = 2);
}

/* A command; says so when it is not answered as it is due to be. */
static void command(int error, const void *bytes, uint32_t length)
{
    uint16_t before = used_index(NET, CONTROL);

    for (uint32_t i = 0; i < length; i++)
        ((uint8_t *)data)[i] = ((const uint8_t *)bytes)[i];
    reply[0] = 0xff;
    table[NET][CONTROL][0] = (struct descriptor){ (uint32_t)data, length, NEXT, 1 };
    table[NET][CONTROL][1] = (struct descriptor){ (uint32_t)reply, 1, WRITE, 0 };
    offer(NET, CONTROL, 0);
    if (answered(NET, CONTROL, before) && *(volatile uint8_t *)reply != error) {
        tell("COMMAND", *(const uint8_t *)bytes);
        tell("ANSWERED", *(volatile uint8_t *)reply);
    }
    refused += error;
}

#define COMMAND(error, ...) command(error, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void commands(void)
{
    uint8_t kind[16] = { 0 };

    /* Nothing; half a command; every class that is not, and the commands behind each class's last. */
    command(1, "", 0);
    COMMAND(1, 0);
    for (int class = 3; class < 256; class++)
        if (class != 4 && class != 5) {
            kind[0] = class;
            command(1, kind, sizeof(kind));
        }
    COMMAND(1, 0, 6, 1);
    COMMAND(1, 1, 2, 1);
    COMMAND(1, 2, 2, 1, 0);
    COMMAND(1, 4, 1, 1, 0);
    COMMAND(1, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0);

    /* Without what they are about, or half of it. */
    for (int mode = 0; mode < 6; mode++)
        COMMAND(1, 0, mode);
    COMMAND(1, 1, 0);
    COMMAND(1, 1, 0, 0, 0, 0);
    COMMAND(1, 1, 0, 0, 0, 0, 0);
    COMMAND(1, 1, 1, 2, 0, 0x5e, 0x10, 0);
    COMMAND(1, 2, 0, 1);
    COMMAND(1, 4, 0, 1);
    COMMAND(1, 5, 0, 0, 0, 0, 0, 0, 0, 0);

    /* Tables without end; another address; VLANs, pairs and offloads that are not. */
    COMMAND(1, 1, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6);
    COMMAND(1, 1, 0, 0x56, 0x55, 0x55, 0x55, 0, 0, 0, 0);
    COMMAND(1, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6);
    COMMAND(1, 1, 1, 2, 0, 0x5e, 0x10, 0, 2);
    COMMAND(1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
    COMMAND(1, 2, 0, 0, 0x10);
    COMMAND(1, 2, 1, 0xff, 0xff);
    COMMAND(1, 4, 0, 0, 0);
    COMMAND(1, 4, 0, 3, 0);
    COMMAND(1, 4, 0, 0, 0x80);
    COMMAND(1, 4, 0, 0xff, 0xff);
    COMMAND(1, 5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
    COMMAND(1, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0);

    /* What is asked for properly is done, or what was refused would prove nothing. */
    for (int mode = 0; mode < 6; mode++) {
        COMMAND(0, 0, mode, 0xff);
        COMMAND(0, 0, mode, 0);
    }
    COMMAND(0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    COMMAND(0, 1, 1, 2, 0, 0x5e, 0x10, 0, 1);
    COMMAND(0, 2, 0, 0xff, 0x0f);
    COMMAND(0, 4, 0, 2, 0);
    COMMAND(0, 4, 0, 1, 0);
    COMMAND(0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

/* The device stands still, another one works, and after a reset it works, too. */
static void expect_stop(int q, int rule)
{
    uint16_t before = used_index(RNG, 0);
    int polls = 0;

    while (!(rd(WINDOW(NET) + 0x70) & 0x40) && polls < 2000000)
        polls++;
    if (polls == 2000000) {
        tell("NOT STOPPED: queue", q);
        tell("rule", rule);
    }
    stopped++;
    plain(60);
    packet.frame[13] = 0xb6;
    table[NET][TX][0] = (struct descriptor){ (uint32_t)&packet, HEADER + 60, 0, 0 };
    if (q == TX)
        offer(NET, TX, 0);
    table[RNG][0][0] = (struct descriptor){ (uint32_t)reply, 16, WRITE, 0 };
    offer(RNG, 0, 0);
    answered(RNG, 0, before);
    bring_up();
    TRY(RIGHT, plain(60), );
}

static void break_ring(int q, int rule)
{
    static struct descriptor inner[2];
    struct descriptor *t = table[NET][q];
    int way = q == RX || q == RX1 ? WRITE : 0, head = 0;

    COMMAND(0, 4, 0, 2, 0);
    t[0] = (struct descriptor){ (uint32_t)data, 64, way, 0 };
    inner[0] = t[0];
    switch (rule) {
    case 0: head = SIZE; break;
    case 1: head = 0xffff; break;
    case 2: available[NET][q][1] += SIZE; break;
    case 3: t[0].flags |= NEXT; t[0].next = 1; t[1] = t[0]; t[1].next = 0; break;
    case 4: t[0].flags |= NEXT; t[0].next = SIZE; break;
    case 5: t[0].flags |= NEXT; t[0].next = 0xffff; break;
    case 6: t[0].address = 1ull << 40; break;
    case 7: t[0].address = ~0ull - 3; break;
    case 8: t[0].address = OUTSIDE - 32; break;
    case 9: t[0].length = ~0u; break;
    case 10: t[0] = (struct descriptor){ (uint32_t)inner, 16, INDIRECT | NEXT, 1 }; break;
    case 11: t[0] = (struct descriptor){ (uint32_t)inner, 8, INDIRECT, 0 }; break;
    case 12: t[0] = (struct descriptor){ (uint32_t)inner, 0, INDIRECT, 0 }; break;
    case 13: t[0] = (struct descriptor){ OUTSIDE - 16, 32, INDIRECT, 0 }; break;
    case 14: inner[0].flags = INDIRECT; t[0] = (struct descriptor){ (uint32_t)inner, 16, INDIRECT, 0 }; break;
    case 15: inner[0].flags |= NEXT; inner[0].next = 1; t[0] = (struct descriptor){ (uint32_t)inner, 16, INDIRECT, 0 }; break;
    case 16: t[0].flags = WRITE | NEXT; t[0].next = 1; t[1] = (struct descriptor){ (uint32_t)data, 64, 0, 0 }; break;
    case 17: t[0].flags = 0; break;
    default: t[0].length = 11; break;
    }
    offer(NET, q, head);
    expect_stop(q, rule);
}

/* A layout that is wrong in one thing: the device does not start. */
static void misplace(int q, uint32_t reg, uint32_t value)
{
    negotiate(NET, low, high);
    for (int i = 0; i < QUEUES; i++)
        place(NET, i);
    wr(WINDOW(NET) + 0x30, q);
    wr(WINDOW(NET) + 0x44, 0);
    wr(WINDOW(NET) + reg, value);
    if (reg != 0x44)
        wr(WINDOW(NET) + 0x44, 1);
    wr(WINDOW(NET) + 0x70, 0xf);
    expect_stop(QUEUES + q, reg);
}

static void rings(void)
{
    bring_up();
    for (int q = 0; q < QUEUES; q++) {
        /* A frame to send may be of any direction and length: it is dropped alone. */
        int rules = q == RX || q == RX1 ? 19 : q == CONTROL ? 18 : 17;
        for (int rule = 0; rule < rules; rule++)
            break_ring(q, rule);
        misplace(q, 0x38, 0);
        misplace(q, 0x38, 3);
        misplace(q, 0x38, 512);
        misplace(q, 0x80, (uint32_t)table + 8);
        misplace(q, 0x84, 0x100);
        misplace(q, 0x84, ~0u);
        misplace(q, 0x90, OUTSIDE - 4);
        misplace(q, 0x90, (uint32_t)available + 1);
        misplace(q, 0x94, ~0u);
        misplace(q, 0xa0, WINDOW(NET));
        misplace(q, 0xa0, (uint32_t)used + 2);
        misplace(q, 0xa4, 1);
        if (q != CONTROL)
            misplace(q, 0x44, 0);
    }

    /* Frames under way while the device is reset. */
    for (int i = 0; i < 200; i++) {
        bring_up();
        for (int n = 0; n < 8; n++) {
            table[NET][TX + n % 2 * 2][0] = (struct descriptor){ (uint32_t)&packet, HEADER + 60, 0, 0 };
            offer(NET, TX + n % 2 * 2, 0);
        }
        wr(WINDOW(NET) + 0x70, 0);
    }
    bring_up();
    TRY(RIGHT, plain(61), );
}

/* A frame of some kind, wrong in up to three bytes, in up to three pieces, that changes while it is sent. */
static void chance(int q)
{
    uint32_t n, kind = rnd() % 6;

    n = kind == 0 ? plain(14 + rnd() % 1600) : kind == 1 ? tcp6(rnd() % 3000, rnd() % 1600) : tcp4(rnd() % 3000, rnd() % 1600);
    if (kind == 5)
        n = rnd() % sizeof(packet);
    for (int i = rnd() % 4; i > 0; i--)
        ((uint8_t *)&packet)[rnd() % 72] = rnd();
    table[NET][q][0] = (struct descriptor){ (uint32_t)&packet, 5 + rnd() % 20, NEXT, 1 };
    table[NET][q][1] = (struct descriptor){ (uint32_t)&packet + table[NET][q][0].length, 1 + rnd() % 40, NEXT, 2 };
    n = n > 70 ? n - table[NET][q][0].length - table[NET][q][1].length : n;
    table[NET][q][2] = (struct descriptor){ (uint32_t)table[NET][q][1].address + table[NET][q][1].length, n, 0, 0 };
    offer(NET, q, 0);
    for (int i = 0; i < 10; i++) {
        packet.frame[6 + i % 6] ^= 0x11;
        packet.h.gso ^= 5;
        packet.h.gso_size = packet.h.csum_start = packet.h.csum_offset = rnd();
        packet.frame[14] = packet.frame[46] = rnd();
    }
}

static void disorder(void)
{
    uint32_t w = WINDOW(NET);
    int q = rnd() % QUEUES;

    switch (rnd() % 24) {
    case 0: wr(w + rnd() % 0x1000, rnd()); break;
    case 1: *(volatile uint8_t *)(w + rnd() % 0x1000) = rnd(); break;
    case 2: wr(w + 0x70, rnd() % 32); break;
    case 3: scribble(NET, q); break;
    case 4: case 5:
        for (int i = 0; i < 8; i++)
            data[i] = rnd() & 1 ? rnd() : rnd() % 6 | rnd() % 6 << 8;
        table[NET][CONTROL][0] = (struct descriptor){ (uint32_t)data, rnd() % 32, NEXT, 1 };
        table[NET][CONTROL][1] = (struct descriptor){ (uint32_t)reply, rnd() % 3, WRITE, 0 };
        offer(NET, CONTROL, 0);
        break;
    case 6: case 7: case 8:
        q = RX + rnd() % 2 * 2;
        table[NET][q][0] = (struct descriptor){ (uint32_t)data, 12 + rnd() % 2000, WRITE | NEXT, 1 };
        table[NET][q][1] = (struct descriptor){ (uint32_t)data + rnd() % 4096, rnd() % 2000, WRITE, 0 };
        offer(NET, q, 0);
        break;
    default: chance(TX + rnd() % 2 * 2);
    }
}

void kernel(uint32_t start_info)
{
    say("START\n");
    start();
    while (asked(start_info, "attack=flood")) {
        bring_up();
        for (int i = 0; i < 200; i++)
            disorder();
    }
    if (asked(start_info, "attack=rings")) {
        rings();
        tell("STOPPED", stopped);
    } else {
        bring_up();
        headers();
        sizes();
        sources();
        commands();
        TRY(RIGHT, plain(61), );
        tell("HEADER", sent[BAD_HEADER]);
        tell("SIZE", sent[BAD_SIZE]);
        tell("SOURCE", sent[SPOOFED]);
        tell("REFUSED", refused);
    }
    tell("RIGHT", sent[RIGHT]);
    say("DONE\n");
    stop();
}
