/* A guest that attacks its devices: registers in any order and width, rings that loop and leave memory, floods of vsock
 * packets, forged FUSE requests, block requests past the end, ports at random. What works and must not is told by a line
 * with ESCAPE. Says DONE when the VMM has stood all of it; with "attack=sustain" it storms and scribbles without end. */
#include "kernel.h"

enum { RNG, CONSOLE, VSOCK, FS, DISK, READ_ONLY_DISK, DEVICES };  /* in the order of their windows */

#define FLOOD 3000
#define STEPS 3000
#define QUEUES 3
#include "rings.h"

/* Requests in the shape of a type: three chains of one readable and one writable buffer. */
static void request(int d, int q, int words)
{
    for (int i = 0; i < words; i++)
        data[i] = rnd() % (rnd() & 1 ? 64 : 5000);
    table[d][q][0] = (struct descriptor){ (uint32_t)data, 4 * words, 1, 1 };
    table[d][q][1] = (struct descriptor){ (uint32_t)data + 2048, 1024, 2, 0 };
    offer(d, q, 0);
}

static void escape(const char *what) { say("ESCAPE "); say(what); say("\n"); }

static void entropy(void)
{
    uint16_t before = used_index(RNG, 0);

    for (int i = 0; i < SIZE; i++)
        table[RNG][0][i] = (struct descriptor){ 16 << 20, 40 << 20, i == SIZE - 1 ? 2 : 3, i + 1 };
    offer(RNG, 0, 0);
    if (answered(RNG, 0, before) && used[RNG][0][2 + 2 * (before % size[RNG][0])] > 1 << 20)
        escape("entropy without bound");
}

/* A sector request; the disk's answer: 0 when it was done. */
static int sector(int d, uint32_t type, uint64_t at, uint32_t length)
{
    uint16_t before = used_index(d, 0);

    data[0] = type;
    data[1] = 0;
    data[2] = at;
    data[3] = at >> 32;
    reply[0] = 0xff;
    table[d][0][0] = (struct descriptor){ (uint32_t)data, 16, 1, 1 };
    table[d][0][1] = (struct descriptor){ (uint32_t)data + 1024, length, type == 1 ? 1 : 3, 2 };
    table[d][0][2] = (struct descriptor){ (uint32_t)reply, 1, 2, 0 };
    offer(d, 0, 0);
    return answered(d, 0, before) ? *(volatile uint8_t *)reply : -1;
}

static void disks(void)
{
    static const uint64_t wild[] = { 128, 1000, 1ull << 54, 1ull << 55, (1ull << 55) + 1, ~0ull, ~0ull - 127, ~0ull >> 9, (~0ull >> 9) + 1 };

    if (sector(DISK, 0, 127, 512) != 0)
        say("the last sector cannot be read\n");
    for (unsigned i = 0; i < sizeof(wild) / sizeof(wild[0]); i++)
        for (uint32_t type = 0; type < 2; type++)
            if (sector(DISK, type, wild[i], 512) == 0)
                escape("past the end of the disk");
    if (sector(DISK, 0, 127, 1024) == 0 || sector(DISK, 1, 126, 2048) == 0)
        escape("over the end of the disk");
    if (sector(READ_ONLY_DISK, 1, 0, 512) == 0 || sector(READ_ONLY_DISK, 13, 0, 512) == 0 || sector(READ_ONLY_DISK, 11, 0, 16) == 0)
        escape("read-only disk");
    if (sector(READ_ONLY_DISK, 0, 0, 512) != 0)
        say("the read-only disk cannot be read\n");
}

/* A FUSE request with a body; its error, 0 when it was done. */
static int fuse(uint32_t opcode, uint64_t node, const void *body, uint32_t length)
{
    uint16_t before = used_index(FS, 1);

    reply[0] = reply[1] = 0;
    data[0] = 40 + length;
    data[1] = opcode;
    data[2]++;
    data[4] = node;
    data[5] = node >> 32;
    for (int i = 6; i < 10; i++)
        data[i] = 0;
    for (uint32_t i = 0; i < length; i++)
        ((uint8_t *)(data + 10))[i] = ((const uint8_t *)body)[i];
    table[FS][1][0] = (struct descriptor){ (uint32_t)data, 40 + length, 1, 1 };
    table[FS][1][1] = (struct descriptor){ (uint32_t)reply, sizeof(reply), 2, 0 };
    offer(FS, 1, 0);
    if (!answered(FS, 1, before))
        return -1;
    for (uint32_t i = 16; i + 6 <= reply[0] && i + 6 <= sizeof(reply); i++)
        if (begins((char *)reply + i, "secret"))
            escape("a file outside");
    return reply[1];
}

static uint64_t node_of(void) { return *(uint64_t *)(reply + 4); }

/* A name that is not there may be answered by node 0, which the guest may remember. */
static int lookup(uint64_t node, const char *name, uint32_t length)
{
    int error = fuse(1, node, name, length);

    return error || node_of() ? error : -2;
}

static void files(void)
{
    static const struct { const char *name; uint32_t length; } names[] = {
#define N(s) { s, sizeof(s) }
        N(""), N("a/b"), N("../secret"), N("/etc/passwd"), N("out/x"), N("./f"), N("f/"), N("f\0../secret"), N("\0"), { "f", 1 }, { "", 0 },
    };
    static const uint32_t init[16] = { 7, 38, 131072 };
    uint32_t body[32] = { 0 };
    uint64_t tree, up, link, file, fh;

    if (fuse(26, 0, init, sizeof(init)) || lookup(1, "tree", 5))
        say("no file system\n");
    tree = node_of();
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!lookup(tree, names[i].name, names[i].length) || !lookup(1, names[i].name, names[i].length))
            escape(names[i].name);

    /* ".." of an export's root is that root; of the device's root, too. */
    for (int i = 0, at = 0; i < 4; i++, at ^= 1) {
        up = at ? 1 : tree;
        for (int steps = 0; steps < 5 && !lookup(up, "..", 3); steps++)
            up = node_of();
        if (!lookup(up, "secret", 7) || !lookup(up, "serial", 7))
            escape("..");
    }

    /* A symlink is never followed by the host: not opened, not looked up in. */
    if (lookup(tree, "out", 4))
        say("no link\n");
    link = node_of();
    for (body[0] = 0; body[0] < 3; body[0]++)
        if (!fuse(14, link, body, 8) || !fuse(27, link, body, 8))
            escape("open of a symlink");
    if (!lookup(link, "secret", 7) || !fuse(35, link, body, 20))
        escape("name below a symlink");

    /* Handles: the right one works, with its own node only. */
    if (lookup(tree, "f", 2))
        say("no file\n");
    file = node_of();
    body[0] = 0;
    if (fuse(14, file, body, 8))
        say("no open file\n");
    fh = *(uint64_t *)(reply + 4);
    for (int i = 0; i < 120; i++) {
        uint64_t forged = i < 80 ? (uint64_t)i : (uint64_t)rnd() << 32 | rnd();
        uint64_t node = i & 1 ? file : forged;
        uint32_t read[10] = { forged, forged >> 32, rnd() & 1 ? 0 : rnd(), rnd() & 1 ? 0 : rnd(), rnd() & 1 ? 4000 : ~0u };
        if (forged != fh && !fuse(15, node, read, sizeof(read)))
            escape("forged handle");
        if (i > 64 && node != file && !fuse(14, forged, body, 8))
            escape("forged node");
    }

    /* Device nodes, which must be none on the host; every opcode with any body. */
    uint32_t mknod[5] = { 0x61b6, 0x800, 0, 0, 'd' };
    fuse(8, tree, mknod, 18);
    mknod[0] = 0x21b6;
    mknod[1] = 0x101;
    fuse(8, tree, mknod, 18);
    for (int i = 0; i < 200; i++) {
        for (int w = 0; w < 16; w++)
            body[w] = rnd() & 1 ? rnd() : rnd() % 80;
        fuse(i % 100 == 26 || i % 100 == 38 ? 99 : i % 100, rnd() & 1 ? tree : rnd() % 80, body, rnd() % sizeof(body));
    }
}

/* Half-open connections without end, resets, credit, shutdowns and data for connections that are not, forged addresses. */
static void storm(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *h = data;
        int forged = i % 3 == 2;

        h[0] = forged ? rnd() : 3; h[1] = forged ? rnd() : 0; h[2] = rnd() % 8 ? 2 : rnd(); h[3] = 0;
        h[4] = i % 2 ? 1000 + i : rnd(); h[5] = rnd() % 4 ? 5000 + i % 7 : rnd();
        h[6] = i % 5 ? 0 : rnd(); h[7] = (rnd() % 8 ? 1 : rnd() & 0xffff) | (i % 3 ? 1 : rnd() % 12) << 16;
        h[8] = i % 3 ? 0 : rnd(); h[9] = rnd() % 2 ? 65536 : rnd(); h[10] = rnd() % 4 ? 0 : rnd();
        table[VSOCK][1][0] = (struct descriptor){ (uint32_t)data, rnd() % 8 ? 44 : rnd() % 4096, 0, 0 };
        offer(VSOCK, 1, 0);
    }
}

static void disorder(void)
{
    int d = rnd() % DEVICES, q = rnd() % QUEUES;
    uint32_t w = WINDOW(d);

    switch (rnd() % 8) {
    case 0: wr(w + rnd() % 0x1000, rnd()); break;
    case 1: *(volatile uint8_t *)(w + rnd() % 0x1000) = rnd(); break;
    case 2: rd(w + rnd() % 0x1000); break;
    case 3: wr(w + 0x70, rnd() % 32); break;
    case 4: scribble(d, q); break;
    case 5: request(d, q, 4 + rnd() % 60); break;
    case 6: if (!(rnd() & 3)) set_up(d); break;
    default: {
        uint16_t port = rnd();
        if ((port & ~7) == 0x600 || port == 0x64 || (port & ~7) == 0x3f8)
            break;
        in8(port);
        out32(port & ~3, rnd());
    }
    }
}

void kernel(uint32_t start_info)
{
    for (int d = 0; d < DEVICES; d++)
        set_up(d);

    say("START\n");
    while (asked(start_info, "attack=sustain")) {
        set_up(VSOCK);
        storm(100);
        for (int i = 0; i < 100; i++)
            disorder();
    }
    entropy();
    disks();
    files();
    say("ASKED\n");
    storm(FLOOD);
    say("FLOODED\n");
    for (int i = 0; i < STEPS; i++)
        disorder();
    say("DONE\n");
    stop();
}
