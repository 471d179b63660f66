/* A guest that ends, or does not, in a way of its choice: the word "attack=..." of its command line. */
#include "kernel.h"

static char line[4096] = "\033]0;owned\007\033[2J\033[31mflood ";

void kernel(uint32_t start_info)
{
    static const struct { uint16_t limit; uint32_t base; } __attribute__((packed)) none;

    if (asked(start_info, "attack=reset"))
        out8(0x64, 0xfe);
    if (asked(start_info, "attack=poweroff"))
        out8(0x600, 0x34);
    if (asked(start_info, "attack=fault"))
        __asm__ volatile("lidt %0; xor %%eax, %%eax; div %%al" : : "m"(none) : "eax");
    if (asked(start_info, "attack=flood")) {
        for (unsigned i = 32; i < sizeof(line); i++)
            line[i] = i % 64 ? 'x' : '\n';
        for (;;) {
            const char *from = line;
            uint32_t count = sizeof(line);
            __asm__ volatile("cld; rep outsb" : "+S"(from), "+c"(count) : "d"(0x3f8) : "memory");
        }
    }
    if (asked(start_info, "attack=spin"))
        for (;;)
            ;
    stop();
}
