/* Calls whose fate hangs on an argument in Docker's seccomp profile; prints each errno. */
#include <errno.h>
#include <stdio.h>
#include <sys/personality.h>
#include <unistd.h>

static void tell(const char *what, long result)
{
    printf("%s %d\n", what, result < 0 ? errno : 0);
}

int main(void)
{
    tell("persona", personality(PER_LINUX32));
    tell("persona-no-randomize", personality(ADDR_NO_RANDOMIZE));
    pid_t child = fork();
    if (child == 0) _exit(0);
    tell("fork", child);
    return 0;
}
