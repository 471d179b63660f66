/* The driver's side of virtio-mmio and its rings, for kernels that break their rules. The kernel says before what devices
 * it has: DEVICES, in the order of their windows, and QUEUES, the most that one of them has. */
#define WINDOW(n) (0xd0000000u + (n) * 0x1000u)
#define SIZE 16

struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };

static struct descriptor table[DEVICES][QUEUES][SIZE] __attribute__((aligned(4096)));
static uint16_t available[DEVICES][QUEUES][64] __attribute__((aligned(4096)));
static uint32_t used[DEVICES][QUEUES][64] __attribute__((aligned(4096)));
static uint32_t size[DEVICES][QUEUES];
static uint32_t data[1024] __attribute__((aligned(4096)));
static uint32_t reply[1024] __attribute__((aligned(4096)));

/* From a reset up to FEATURES_OK. */
static void negotiate(int d, uint32_t low, uint32_t high)
{
    uint32_t w = WINDOW(d);
    wr(w + 0x70, 0);
    wr(w + 0x70, 1);
    wr(w + 0x70, 3);
    wr(w + 0x24, 1);
    wr(w + 0x20, high);
    wr(w + 0x24, 0);
    wr(w + 0x20, low);
    wr(w + 0x70, 0xb);
}

static void place(int d, int q)
{
    uint32_t w = WINDOW(d);
    wr(w + 0x30, q);
    size[d][q] = rd(w + 0x34) < SIZE ? rd(w + 0x34) : SIZE;
    if (!size[d][q])
        return;
    wr(w + 0x38, size[d][q]);
    wr(w + 0x80, (uint32_t)table[d][q]);
    wr(w + 0x84, 0);
    wr(w + 0x90, (uint32_t)available[d][q]);
    wr(w + 0x94, 0);
    wr(w + 0xa0, (uint32_t)used[d][q]);
    wr(w + 0xa4, 0);
    wr(w + 0x44, 1);
    available[d][q][1] = 0;
    used[d][q][0] = 0;
}

static void set_up_with(int d, uint32_t low, uint32_t high)
{
    negotiate(d, low, high);
    for (int q = 0; q < QUEUES; q++)
        place(d, q);
    wr(WINDOW(d) + 0x70, 0xf);
}

static inline void set_up(int d) { set_up_with(d, 0, 1); }

static void offer(int d, int q, int head)
{
    uint16_t *ring = available[d][q];
    ring[2 + ring[1] % (size[d][q] ? size[d][q] : SIZE)] = head;
    __asm__ volatile("" : : : "memory");
    ring[1]++;
    wr(WINDOW(d) + 0x50, q);
}

static inline void scribble(int d, int q)
{
    for (int i = 0; i < 4; i++) {
        uint64_t wild = rnd() & 1 ? ((uint64_t)rnd() << 32 | rnd()) : (uint32_t)data + rnd() % 4096;
        table[d][q][i] = (struct descriptor){ wild, rnd() & 1 ? rnd() : rnd() % 300, rnd() % 8, rnd() % 6 };
    }
    offer(d, q, rnd() & 7 ? rnd() % 4 : rnd());
    if (!(rnd() & 15))
        available[d][q][1] += rnd();
}

/* Waits until the device has used what was offered: some seconds, as each look at a register leaves the guest. */
static int answered(int d, int q, uint16_t before)
{
    for (int i = 0; i < 2000000; i++) {
        if ((uint16_t)(*(volatile uint32_t *)used[d][q] >> 16) != before)
            return 1;
        rd(WINDOW(d) + 0x60);
    }
    say("NO ANSWER\n");
    return 0;
}

static uint16_t used_index(int d, int q) { return *(volatile uint32_t *)used[d][q] >> 16; }
