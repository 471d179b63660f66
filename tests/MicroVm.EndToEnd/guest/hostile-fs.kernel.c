/* A kernel that asks a virtio-fs device for more than it may have, by requests that are well-formed, each by itself.
 * attack=handles: opens the root and a file without end, and releases nothing.
 * attack=long: forgets and copies as much as a request can say, in every place of the queues, then resets the device. */
#include "kernel.h"
#define DEVICES 8
#define QUEUES 2
#include "rings.h"

enum { LOOKUP = 1, OPEN = 14, INIT = 26, OPENDIR = 27, BATCH_FORGET = 42, COPY_FILE_RANGE = 47 };

static int fs;

static void number(uint32_t v)
{
    char text[12];
    int i = 11;

    text[i] = 0;
    do
        text[--i] = '0' + v % 10;
    while (v /= 10);
    say(text + i);
}

/* Lays a request down in descriptors 0 and 1 of a queue. */
static void lay(int queue, uint32_t opcode, uint64_t node, const void *body, uint32_t length)
{
    for (int i = 0; i < 10; i++)
        data[i] = 0;
    data[0] = 40 + length;
    data[1] = opcode;
    data[2] = 1;
    data[4] = node;
    data[5] = node >> 32;
    for (uint32_t i = 0; i < length; i++)
        ((uint8_t *)(data + 10))[i] = ((const uint8_t *)body)[i];
    table[fs][queue][0] = (struct descriptor){ (uint32_t)data, 40 + length, 1, 1 };
    table[fs][queue][1] = (struct descriptor){ (uint32_t)reply, sizeof(reply), 2, 0 };
}

/* Sends what is laid down once; the error. */
static int sent(void)
{
    uint16_t before = used_index(fs, 1);

    reply[1] = 0;
    offer(fs, 1, 0);
    return answered(fs, 1, before) ? -(int)reply[1] : -1;
}

static int fuse(uint32_t opcode, uint64_t node, const void *body, uint32_t length)
{
    lay(1, opcode, node, body, length);
    return sent();
}

/* The first eight bytes of the answer: a node id, or a handle. */
static uint64_t answer(void) { return *(uint64_t *)(reply + 4); }

/* Offers what is laid down in every place of a queue at once. */
static void fill(int queue)
{
    for (uint32_t i = 0; i < size[fs][queue]; i++)
        available[fs][queue][2 + i] = 0;
    __asm__ volatile("" : : : "memory");
    available[fs][queue][1] += size[fs][queue];
    wr(WINDOW(fs) + 0x50, queue);
}

/* Sends a request without end, until an answer is an error. */
static void flood(const char *name, uint32_t opcode, uint64_t node)
{
    static const uint32_t body[2];
    uint32_t opened = 0;

    lay(1, opcode, node, body, sizeof(body));
    while (opened < 1000000 && !sent()) {
        uint16_t target = available[fs][1][1] + size[fs][1];
        fill(1);
        while (used_index(fs, 1) != target)
            rd(WINDOW(fs) + 0x60);
        opened += size[fs][1] + 1;
    }
    say(name);
    say(" ");
    number(-(int)reply[1]);
    say("\n");
}

static void start_session(void)
{
    static const uint32_t init[16] = { 7, 38, 131072 };

    set_up_with(fs, 0, 1);
    if (fuse(INIT, 0, init, sizeof(init)))
        say("no session\n");
}

static uint64_t looked_up(uint64_t node, const char *name, uint32_t length)
{
    if (fuse(LOOKUP, node, name, length))
        say("not found\n");
    return answer();
}

static void long_requests(void)
{
    uint32_t open[2] = { 2 };
    uint64_t from = looked_up(looked_up(1, "tree", 5), "from", 5), to = looked_up(looked_up(1, "tree", 5), "to", 3);
    struct { uint64_t from, offset, node, to, at, length, flags; } copy = { .node = to, .length = 1ull << 40 };

    fuse(OPEN, from, open, sizeof(open));
    copy.from = answer();
    fuse(OPEN, to, open, sizeof(open));
    copy.to = answer();
    if (fuse(COPY_FILE_RANGE, from, &copy, sizeof(copy)) || reply[4] == 0 || reply[4] > 64 << 20)
        say("a copy is not what it should be\n");

    fill(1);
    for (int i = 0; i < SIZE; i++)
        table[fs][0][i] = (struct descriptor){ i ? 32 << 20 : (uint32_t)reply + 2048, i ? 32 << 20 : 48, i == SIZE - 1 ? 0 : 1, i + 1 };
    uint32_t *forget = reply + 512;
    forget[0] = 48 + (SIZE - 1) * (32u << 20);
    forget[1] = BATCH_FORGET;
    forget[10] = 0xffffffff;
    fill(0);
    say("KICK\n");
    wr(WINDOW(fs) + 0x70, 0);
    say("RESET\n");
    start_session();
    looked_up(looked_up(1, "tree", 5), "from", 5);
}

void kernel(uint32_t start_info)
{
    while (rd(WINDOW(fs) + 8) != 26)
        fs++;
    start_session();
    say("START\n");
    if (asked(start_info, "attack=handles")) {
        uint64_t file = looked_up(looked_up(1, "tree", 5), "from", 5);
        flood("OPENDIR", OPENDIR, 1);
        flood("OPEN", OPEN, file);
    } else {
        long_requests();
    }
    say("DONE\n");
    for (;;)
        rd(WINDOW(fs) + 0x60);
}
