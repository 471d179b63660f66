// notify MESSAGE...: sends each as a datagram to the socket that NOTIFY_SOCKET names (sd_notify(3)), then sleeps. Only the first must be taken: who has
// heard what was waited for removes the socket.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    const char *path = getenv("NOTIFY_SOCKET");
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (path == NULL || strlen(path) >= sizeof to.sun_path || fd < 0) {
        printf("no socket\n");
        return 1;
    }
    strcpy(to.sun_path, path);
    for (int i = 1; i < argc; i++)
        if (sendto(fd, argv[i], strlen(argv[i]), 0, (struct sockaddr *)&to, sizeof to) < 0 && i == 1) {
            perror(path);
            return 1;
        }
    sleep(1000);
    return 0;
}
