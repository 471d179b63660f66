/*
 * Runs before anything else of an executable: fills descriptors 0 to 2 where the caller closed them, so that no file that the
 * runtime opens gets one of their numbers. (Without it, .NET's /dev/urandom became the standard input of `exec C cat <&-`.)
 *
 * Where there is no /dev/null (the guest's init starts without one), the number is taken by the root folder, opened with O_PATH:
 * reads and writes fail with EBADF, as they would on the closed descriptor.
 */
#define _GNU_SOURCE
#include <fcntl.h>

__attribute__((constructor(101))) static void fill_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			(void)!open("/", O_PATH);
}
