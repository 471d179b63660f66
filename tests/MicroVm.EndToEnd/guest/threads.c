/* Makes threads until the kernel makes no more; says how many it has and why there are no more, and keeps them until its input ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void *wait(void *unused) { pause(); return unused; }

int main(void)
{
    pthread_attr_t small;
    pthread_t thread;
    int count = 1, error;
    char none;

    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    while (!(error = pthread_create(&thread, &small, wait, NULL)) && count < 100000)
        count++;
    printf("%d threads: %s\n", count, error ? strerrorname_np(error) : "no end");
    fflush(stdout);
    return read(0, &none, 1) < 0;
}
