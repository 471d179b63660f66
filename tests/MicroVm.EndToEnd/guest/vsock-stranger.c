/* Connects to ports of the host on the VM's vsock device, as any process of a guest may, and tells which of them answer.
 *
 *	vsock-stranger FIRST COUNT
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <sys/time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timeval patience = { .tv_sec = 5 };
    char buffer[64];
    int connected = 0;

    if (argc != 3)
        return 2;
    for (int i = 0; i < atoi(argv[2]); i++) {
        struct sockaddr_vm to = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = strtoul(argv[1], 0, 0) + i };
        int s = socket(AF_VSOCK, SOCK_STREAM, 0);
        if (s < 0) {
            printf("no sockets: %s\n", strerror(errno));
            return 0;
        }
        setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (connect(s, (void *)&to, sizeof to) == 0) {
            connected++;
            /* Longer than anything that a stranger might be asked for. */
            send(s, "a stranger, whom nobody has asked to come in, says hello\n", 57, MSG_NOSIGNAL);
            shutdown(s, SHUT_WR);
            if (recv(s, buffer, sizeof buffer, 0) > 0)
                printf("REACHED port %u\n", to.svm_port);
        }
        close(s);
    }
    printf("connected %d\n", connected);
    return 0;
}
