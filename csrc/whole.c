/* Whole files: many small ones that are cached, and the copy of a large one. */
#include "engine.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* The size of a file, whose data is then in memory; -ENOBUFS: it has no room there. */
static int64_t read_cached_file(int dirfd, const char *path, char *memory, int64_t room,
				const uint64_t *local_mounts, int n_mounts)
{
	uf_identity identity;
	int fd = uf_open_if_regular(dirfd, path, O_RDONLY | O_CLOEXEC, local_mounts, n_mounts,
				    &identity);
	int64_t got;

	if (fd < 0)
		return fd;
	/* One byte more: a read that ends at this size has seen the end. Should the path lead to
	 * something else by now, that is read whole, or not by this call: what is no regular
	 * file of a local file system knows no RWF_NOWAIT, or has no such end. */
	if (identity.size >= room) {
		got = -ENOBUFS;
	} else {
		got = uf_read_nowait(fd, memory, (uint64_t)identity.size + 1, 0);
		if (got != identity.size)
			got = -EAGAIN;
	}
	close(fd);
	return got;
}

/* Where the path of the file before this one led to: most are neighbours. */
struct directory {
	const char *path;
	size_t length; /* with the last slash */
	int fd;
};

static void leave(struct directory *directory)
{
	if (directory->fd >= 0)
		close(directory->fd);
	directory->fd = -1;
}

/* The rest of the path, behind the directory that is entered. */
static const char *enter(struct directory *directory, const char *path, int neighbours)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) + 1 : 0;
	char name[PATH_MAX];

	if (directory->fd >= 0 && length == directory->length &&
	    !memcmp(path, directory->path, length))
		return path + length;
	leave(directory);
	/* An empty rest means the directory itself, which is no file. */
	if (!neighbours || !length || length >= sizeof(name) || !slash[1])
		return path;
	memcpy(name, path, length);
	name[length] = 0;
	directory->path = path;
	directory->length = length;
	directory->fd = uf_open_directory_cached(name);
	return directory->fd < 0 ? path : path + length;
}

int uf_read_cached_files(const char *paths, int n, char *memory, int64_t room, int64_t *sizes,
			 const uint64_t *local_mounts, int n_mounts)
{
	struct directory directory = { .fd = -1 };
	int64_t used = 0;
	int i;

	for (i = 0; i < n; i++) {
		const char *rest = enter(&directory, paths, n > 2);
		int64_t size = read_cached_file(directory.fd < 0 ? AT_FDCWD : directory.fd, rest,
						memory + used, room - used, local_mounts, n_mounts);

		if (size == -ENOBUFS && used)
			break;
		sizes[i] = size < 0 ? -EAGAIN : size;
		if (size > 0)
			used += size;
		paths += strlen(paths) + 1;
	}
	leave(&directory);
	return i;
}

int64_t uf_copy(int from, int to, int64_t length, char *memory, int64_t room)
{
	int64_t done = 0;

	while (done < length) {
		ssize_t got =
			read(from, memory, (size_t)(length - done < room ? length - done : room));

		if (got < 0 && errno != EINTR)
			return -errno;
		if (!got)
			break;
		for (ssize_t written = 0; written < got;) {
			ssize_t ret = write(to, memory + written, (size_t)(got - written));

			if (ret < 0 && errno != EINTR)
				return -errno;
			if (!ret) /* no more will it take the next time */
				return -EIO;
			written += ret < 0 ? 0 : ret;
		}
		done += got < 0 ? 0 : got;
	}
	return done;
}
