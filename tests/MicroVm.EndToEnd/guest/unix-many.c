/* unix-many COUNT PREFIX: binds so many sockets, connects to each by its name, and ends. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int count = argc == 3 ? atoi(argv[1]) : 0, connected = 0;

	for (int i = 0; i < count; i++) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		int s = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);

		snprintf(address.sun_path, sizeof address.sun_path, "%s%d", argv[2], i);
		if (bind(s, (void *)&address, sizeof address) < 0 || listen(s, 1) < 0)
			return 3;
		connected += connect(c, (void *)&address, sizeof address) == 0;
		close(c);
	}
	printf("connected to %d\n", connected);
	return 0;
}
