/* Writes and fdatasyncs batches of the given sizes, one behind another: log_batches PATH <sizes.
 * Prints the seconds it took. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static char data[1 << 24];
	size_t *sizes = NULL;
	size_t n = 0, size;
	double start;
	int fd;

	if (argc != 2)
		return 2;
	while (scanf("%zu", &size) == 1) {
		if (size > sizeof(data))
			return 2;
		sizes = realloc(sizes, (n + 1) * sizeof(*sizes));
		sizes[n++] = size;
	}
	memset(data, 'x', sizeof(data));
	fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || fsync(fd))
		return 1;
	start = now();
	for (size_t i = 0; i < n; i++)
		if (write(fd, data, sizes[i]) != (ssize_t)sizes[i] || fdatasync(fd))
			return 1;
	printf("%.6f\n", now() - start);
	return 0;
}
