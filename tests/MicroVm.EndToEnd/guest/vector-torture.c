/* Many processes keep patterns of their own in every vector, mask and x87 register while they are scheduled away and
 * back; a process whose registers changed says which. usage: vector-torture PROCESSES ROUNDS */
#include <cpuid.h>
#include <immintrin.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t in[32][64], out[32][64];
static uint64_t masks_in[8], masks_out[8];

#define ZMM(op)                                                                                                       \
    op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)             \
    op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define YMM(op)                                                                                                       \
    op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define LOADZ(n) "vmovdqu64 " #n "*64(%0), %%zmm" #n "\n"
#define STOREZ(n) "vmovdqu64 %%zmm" #n ", " #n "*64(%1)\n"
#define LOADY(n) "vmovdqu " #n "*64(%0), %%ymm" #n "\n"
#define STOREY(n) "vmovdqu %%ymm" #n ", " #n "*64(%1)\n"

/* The yield is an inline system call: nothing of libc may touch the registers between the load and the store. */
#define YIELD "mov $24, %%eax\nsyscall\n"

static void round512(void)
{
    __asm__ volatile(ZMM(LOADZ)
                     "kmovq (%2), %%k1\nkmovq 8(%2), %%k2\nkmovq 16(%2), %%k3\nkmovq 24(%2), %%k4\n" YIELD YIELD
                     "kmovq %%k1, (%3)\nkmovq %%k2, 8(%3)\nkmovq %%k3, 16(%3)\nkmovq %%k4, 24(%3)\n" ZMM(STOREZ)
                     : : "r"(in), "r"(out), "r"(masks_in), "r"(masks_out) : "rax", "rcx", "r11", "memory");
}

static void round256(void)
{
    __asm__ volatile(YMM(LOADY) YIELD YIELD YMM(STOREY) : : "r"(in), "r"(out) : "rax", "rcx", "r11", "memory");
}

static int child(unsigned id, int rounds, int avx512)
{
    long double x87 = 1.0L + id, kept;
    unsigned mxcsr = 0x1f80 | ((id & 3) << 13), mxcsr_out;
    int registers = avx512 ? 32 : 16, width = avx512 ? 64 : 32;

    srand(id + 1);
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < 32; i++)
            for (int b = 0; b < 64; b++)
                in[i][b] = rand();
        for (int i = 0; i < 4; i++)
            masks_in[i] = ((uint64_t)rand() << 33) ^ rand();
        memset(out, 0, sizeof out);
        __asm__ volatile("fldt %0" : : "m"(x87));
        __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
        if (avx512)
            round512();
        else
            round256();
        __asm__ volatile("stmxcsr %0" : "=m"(mxcsr_out));
        __asm__ volatile("fstpt %0" : "=m"(kept));
        if (kept != x87 || (mxcsr_out & 0xffc0) != (mxcsr & 0xffc0)) {
            printf("process %u round %d: x87 or mxcsr changed\n", id, r);
            return 1;
        }
        for (int i = 0; i < registers; i++)
            if (memcmp(in[i], out[i], width)) {
                printf("process %u round %d: vector register %d changed\n", id, r, i);
                return 1;
            }
        if (avx512 && memcmp(masks_in, masks_out, 32)) {
            printf("process %u round %d: a mask register changed\n", id, r);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    int processes = atoi(argv[1]), rounds = atoi(argv[2]), bad = 0, status;
    unsigned a, b = 0, c, d;

    __get_cpuid_count(7, 0, &a, &b, &c, &d);
    int avx512 = (b >> 16 & 1) && (b >> 30 & 1);
    printf("%s\n", avx512 ? "avx512" : "avx2");
    fflush(stdout);
    for (int i = 0; i < processes; i++)
        if (fork() == 0)
            exit(child(i, rounds, avx512));
    while (wait(&status) > 0)
        bad += status != 0;
    printf("%d of %d processes kept their registers\n", processes - bad, processes);
    return bad != 0;
}
