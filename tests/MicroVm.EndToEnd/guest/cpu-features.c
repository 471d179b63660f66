/* Tells what CPUID reports, and whether the processor executes it: one line for each feature, "name reported executed". */
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

static sigjmp_buf back;

static void on_sigill(int sig)
{
	siglongjmp(back, 1);
}

static void run_nothing(void) { }
static void run_avx(void) { asm volatile("vxorps %%ymm7, %%ymm7, %%ymm7" : : : "xmm7"); }
static void run_avx2(void) { asm volatile("vpaddd %%ymm7, %%ymm7, %%ymm7" : : : "xmm7"); }
static void run_popcnt(void) { asm volatile("popcnt %%eax, %%ecx" : : : "ecx"); }
static void run_xgetbv(void) { asm volatile("xgetbv" : : "c" (0) : "eax", "edx"); }

static const struct {
	const char *name;
	unsigned leaf, subleaf, reg, bit;
	void (*run)(void);
} features[] = {
	{ "popcnt", 1, 0, 2, 23, run_popcnt }, { "osxsave", 1, 0, 2, 27, run_xgetbv }, { "avx", 1, 0, 2, 28, run_avx },
	{ "avx2", 7, 0, 1, 5, run_avx2 }, { "aes", 1, 0, 2, 25, run_nothing }, { "rdrand", 1, 0, 2, 30, run_nothing },
	{ "clwb", 7, 0, 1, 24, run_nothing },
};

int main(void)
{
	unsigned i, r[4];

	signal(SIGILL, on_sigill);
	for (i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		volatile int ran = 0;

		if (!__get_cpuid_count(features[i].leaf, features[i].subleaf, &r[0], &r[1], &r[2], &r[3]))
			r[0] = r[1] = r[2] = r[3] = 0;
		if (!sigsetjmp(back, 1)) {
			features[i].run();
			ran = 1;
		}
		printf("%s %u %d\n", features[i].name, r[features[i].reg] >> features[i].bit & 1, ran);
	}
	if (__get_cpuid_count(0xd, 0, &r[0], &r[1], &r[2], &r[3]))
		printf("xcr0 %u\n", r[0]);
	return 0;
}
