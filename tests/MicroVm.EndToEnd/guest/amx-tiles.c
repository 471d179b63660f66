/* Uses AMX as a program does that finds it: asks the kernel for it, and, when it may, checks that tiles survive while processes take
 * turns. Prints "[no ]AMX, refused: WHY, ended by signal N" (of a process that uses tiles all the same), or
 * "N of N processes kept their tiles". usage: amx-tiles PROCESSES ROUNDS
 * With "hold" it says "holding" and keeps tiles in use until it is ended; with "look N" it uses none, and says how often it found that some
 * are in use. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18
#define ROWS 16
#define ROW_BYTES 64

struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((packed, aligned(64)));

static uint8_t in[ROWS * ROW_BYTES] __attribute__((aligned(64))), out[ROWS * ROW_BYTES] __attribute__((aligned(64)));

static void configure(void)
{
    struct config c = {.palette = 1};
    for (int i = 0; i < 2; i++) {
        c.row_bytes[i] = ROW_BYTES;
        c.rows[i] = ROWS;
    }
    __asm__ volatile(".byte 0xc4,0xe2,0x78,0x49,0x00" ::"a"(&c) : "memory"); // ldtilecfg [rax]
}

static void load(void)
{
    __asm__ volatile(".byte 0xc4,0xe2,0x7b,0x4b,0x04,0x08" ::"a"(in), "c"((long)ROW_BYTES) : "memory"); // tileloadd tmm0, [rax+rcx]
}

static void store(void)
{
    __asm__ volatile(".byte 0xc4,0xe2,0x7a,0x4b,0x04,0x08" ::"a"(out), "c"((long)ROW_BYTES) : "memory"); // tilestored [rax+rcx], tmm0
}

static void take_turns(unsigned i)
{
    if (i % 3 != 0)
        sched_yield();
    else
        for (volatile int spin = 0; spin < 100000; spin++)
            ;
}

static void refused(int signal)
{
    static const char text[] = "refused\n";
    (void)signal;
    if (write(1, text, sizeof text - 1) < 0)
        _exit(1);
    _exit(0);
}

static void hold(void)
{
    syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
    memset(in, 0x5a, sizeof in);
    for (unsigned i = 0;; i++) {
        configure();
        load();
        if (i == 0) {
            puts("holding");
            fflush(stdout);
        }
        take_turns(i);
    }
}

static int look(unsigned looks)
{
    static uint8_t found[64] __attribute__((aligned(64)));
    unsigned configured = 0, data = 0;
    for (unsigned i = 0; i < looks; i++) {
        __asm__ volatile(".byte 0xc4,0xe2,0x79,0x49,0x00" ::"a"(found) : "memory"); // sttilecfg [rax]
        if (found[0] != 0) {
            configured++;
            store();
            data += out[0] == 0x5a;
        }
        take_turns(i);
    }
    printf("%u looks found %u configurations, %u tiles\n", looks, configured, data);
    return 0;
}

static int keeps(int seed, int rounds)
{
    configure();
    for (int round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < sizeof in; i++)
            in[i] = (uint8_t)(i * 7 + seed * 31 + round);
        load();
        for (int turn = 0; turn < 3; turn++) {
            sched_yield();
            memset(out, 0, sizeof out);
            store();
            if (memcmp(in, out, sizeof in) != 0)
                return 0;
        }
    }
    return 1;
}

// How a process that uses a tile ends: 0 when it does not end by a signal.
static int ends_by(void)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        configure();
        load();
        _exit(0);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "hold") == 0 || strcmp(argv[1], "look") == 0)) {
        signal(SIGILL, refused);
        if (argv[1][0] == 'h')
            hold();
        return look(argc > 2 ? (unsigned)atoi(argv[2]) : 1000);
    }
    int processes = argc > 1 ? atoi(argv[1]) : 4, rounds = argc > 2 ? atoi(argv[2]) : 10;
    unsigned a, b, c, d;
    const char *shown = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & (1u << 24)) ? "AMX" : "no AMX";
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) {
        int error = errno;
        printf("%s, refused: %s, ended by signal %d\n", shown, strerror(error), ends_by());
        return 0;
    }
    int kept = 0;
    for (int i = 0; i < processes; i++) {
        if (fork() == 0)
            _exit(keeps(i, rounds) ? 0 : 1);
    }
    for (int i = 0; i < processes; i++) {
        int status;
        wait(&status);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            kept++;
        else if (WIFSIGNALED(status))
            printf("ended by signal %d\n", WTERMSIG(status));
    }
    printf("%d of %d processes kept their tiles\n", kept, processes);
    return 0;
}
