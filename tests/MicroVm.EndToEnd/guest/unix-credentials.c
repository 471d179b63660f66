/* unix-credentials UID UMASK PATH: as this user, binds a socket, says "listening", tells the first that connects who it is, and ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct peer { int pid; unsigned uid, gid; };

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	struct peer peer;
	socklen_t length = sizeof peer;
	int c;

	if (argc != 4 || strlen(argv[3]) >= sizeof address.sun_path)
		return 2;
	strcpy(address.sun_path, argv[3]);
	umask(strtol(argv[2], 0, 8));
	if (setgid(atoi(argv[1])) < 0 || setuid(atoi(argv[1])) < 0)
		return 3;
	if (bind(s, (void *)&address, sizeof address) < 0 || listen(s, 16) < 0)
		return 4;
	printf("listening\n");
	fflush(stdout);
	if ((c = accept(s, 0, 0)) < 0 || getsockopt(c, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return 5;
	dprintf(c, "uid=%u gid=%u\n", peer.uid, peer.gid);
	return 0;
}
