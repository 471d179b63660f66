/* A guest that attacks its devices: registers in any order and width, rings that loop and leave memory, floods of vsock
 * packets, forged FUSE requests, block requests past the end, ports at random. Says DONE when the VMM has stood all of it. */
#include <stdint.h>

#define WINDOW(n) (0xd0000000u + (n) * 0x1000u)

static uint32_t state = 0x9e3779b9;

static inline uint32_t rnd(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}
static inline void out8(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void out32(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
static inline uint8_t in8(uint16_t port) { uint8_t v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void wr(uint32_t address, uint32_t v) { *(volatile uint32_t *)address = v; }
static inline uint32_t rd(uint32_t address) { return *(volatile uint32_t *)address; }
static void say(const char *s) { while (*s) out8(0x3f8, *s++); }

#define DEVICES 5   /* in the order of their windows: rng, console, vsock, fs, block */
#define VSOCK 2
#define FLOOD 3000
#define STEPS 3000
#define QUEUES 3
#define SIZE 16

struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };

static struct descriptor table[DEVICES][QUEUES][SIZE] __attribute__((aligned(4096)));
static uint16_t available[DEVICES][QUEUES][64] __attribute__((aligned(4096)));
static uint32_t used[DEVICES][QUEUES][64] __attribute__((aligned(4096)));
static uint32_t size[DEVICES][QUEUES];
static uint32_t data[1024] __attribute__((aligned(4096)));

static void set_up(int d)
{
    uint32_t w = WINDOW(d);
    wr(w + 0x70, 0);
    wr(w + 0x70, 1);
    wr(w + 0x70, 3);
    wr(w + 0x24, 1);
    wr(w + 0x20, 1);
    wr(w + 0x70, 0xb);
    for (int q = 0; q < QUEUES; q++) {
        wr(w + 0x30, q);
        size[d][q] = rd(w + 0x34) < SIZE ? rd(w + 0x34) : SIZE;
        if (!size[d][q])
            continue;
        wr(w + 0x38, size[d][q]);
        wr(w + 0x80, (uint32_t)table[d][q]);
        wr(w + 0x84, 0);
        wr(w + 0x90, (uint32_t)available[d][q]);
        wr(w + 0x94, 0);
        wr(w + 0xa0, (uint32_t)used[d][q]);
        wr(w + 0xa4, 0);
        wr(w + 0x44, 1);
        available[d][q][1] = 0;
    }
    wr(w + 0x70, 0xf);
}

static void offer(int d, int q, int head)
{
    uint16_t *ring = available[d][q];
    ring[2 + ring[1] % (size[d][q] ? size[d][q] : SIZE)] = head;
    __asm__ volatile("" : : : "memory");
    ring[1]++;
    wr(WINDOW(d) + 0x50, q);
}

/* Requests in the shape of a type: three chains of one readable and one writable buffer. */
static void request(int d, int q, int words)
{
    for (int i = 0; i < words; i++)
        data[i] = rnd() % (rnd() & 1 ? 64 : 5000);
    table[d][q][0] = (struct descriptor){ (uint32_t)data, 4 * words, 1, 1 };
    table[d][q][1] = (struct descriptor){ (uint32_t)data + 2048, 1024, 2, 0 };
    offer(d, q, 0);
}

static void scribble(int d, int q)
{
    for (int i = 0; i < 4; i++) {
        uint64_t wild = rnd() & 1 ? ((uint64_t)rnd() << 32 | rnd()) : (uint32_t)data + rnd() % 4096;
        table[d][q][i] = (struct descriptor){ wild, rnd() & 1 ? rnd() : rnd() % 300, rnd() % 8, rnd() % 6 };
    }
    offer(d, q, rnd() & 7 ? rnd() % 4 : rnd());
    if (!(rnd() & 15))
        available[d][q][1] += rnd();
}

void attack(void)
{
    for (int d = 0; d < DEVICES; d++)
        set_up(d);

    say("START\n");
    /* Half-open connections without end: a request from another port each time (virtio 1.2, 5.10.6). */
    for (uint32_t i = 0; i < FLOOD; i++) {
        uint32_t *h = data;
        h[0] = 3; h[1] = 0; h[2] = 2; h[3] = 0; h[4] = 1000 + i; h[5] = 5000 + i % 7;
        h[6] = 0; h[7] = 1 | 1 << 16; h[8] = 0; h[9] = 65536; h[10] = 0;
        table[VSOCK][1][0] = (struct descriptor){ (uint32_t)data, 44, 0, 0 };
        offer(VSOCK, 1, 0);
    }
    say("FLOODED\n");
    for (int i = 0; i < STEPS; i++) {
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
    say("DONE\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

__asm__(".pushsection .note, \"a\"\n.long 4, 4, 18\n.asciz \"Xen\"\n.long start\n.popsection\n"
        ".pushsection .text\n.globl start\nstart: mov $stack_top, %esp\ncall attack\n.popsection\n"
        ".pushsection .bss\n.skip 16384\nstack_top:\n.popsection\n");
