/*
 * Extended attributes of a file.
 *
 *	xattr set FILE NAME VALUE
 *	xattr get FILE NAME
 *	xattr list FILE
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

static char buffer[65536];

int main(int argc, char **argv)
{
	ssize_t n = -1;

	if (argc == 5 && strcmp(argv[1], "set") == 0) {
		n = setxattr(argv[2], argv[3], argv[4], strlen(argv[4]), 0);
		if (n == 0)
			puts("set");
	} else if (argc == 4 && strcmp(argv[1], "get") == 0) {
		n = getxattr(argv[2], argv[3], buffer, sizeof buffer);
		if (n >= 0)
			printf("%.*s\n", (int)n, buffer);
	} else if (argc == 3 && strcmp(argv[1], "list") == 0) {
		n = listxattr(argv[2], buffer, sizeof buffer);
		for (ssize_t at = 0; at < n; at += strlen(buffer + at) + 1)
			puts(buffer + at);
	} else {
		return 2;
	}
	if (n < 0)
		printf("%s: %s\n", argv[1], strerror(errno));
	return n < 0;
}
