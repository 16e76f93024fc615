/* Facts about a file that decide which calls the loop's thread may make, and the one
 * open that it may make. */
#include "engine.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* struct statx of Linux 6.8, whose last fields are newer than many headers; and the function
 * musl has only from 1.2.5 on. */
struct statx_abi {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, pad;
	uint64_t ino, size, blocks, attributes_mask;
	uint64_t times[8];
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t mnt_id;
	uint32_t dio_mem_align, dio_offset_align;
	uint64_t spare[12];
};

_Static_assert(sizeof(struct statx_abi) == 256, "the size that the kernel fills");

#define MASK_TYPE 0x1u
#define MASK_MODE 0x2u
#define MASK_SIZE 0x200u
#define MASK_DIOALIGN 0x2000u
#define MASK_MNT_ID_UNIQUE 0x4000u
#define DONT_SYNC 0x4000

static int sys_statx(int fd, unsigned mask, struct statx_abi *stx)
{
	return (int)syscall(SYS_statx, fd, "", AT_EMPTY_PATH | DONT_SYNC, mask, stx);
}

static int from_fstat(int fd, uf_identity *identity)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	identity->mode = st.st_mode;
	identity->size = st.st_size;
	return 0;
}

int uf_identify(int fd, uf_identity *identity)
{
	struct statx_abi stx;

	memset(identity, 0, sizeof(*identity));
	if (sys_statx(fd, MASK_TYPE | MASK_MODE | MASK_SIZE | MASK_DIOALIGN | MASK_MNT_ID_UNIQUE,
		      &stx)) {
		/* Old container filters refuse statx. */
		return errno == ENOSYS || errno == EPERM ? from_fstat(fd, identity) : -errno;
	}
	identity->mode = stx.mode;
	identity->size = (int64_t)stx.size;
	if (stx.dev_major)
		identity->device = (uint64_t)stx.dev_major << 32 | stx.dev_minor;
	if (stx.mask & MASK_MNT_ID_UNIQUE)
		identity->mount = stx.mnt_id;
	if (stx.mask & MASK_DIOALIGN)
		identity->dio_align = stx.dio_offset_align;
	return 0;
}

int uf_is_local(int fd)
{
	/* statfs(2): ext2/3/4, xfs, btrfs, f2fs, tmpfs, ramfs */
	static const unsigned long local[] = {
		0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x01021994, 0x858458f6,
	};
	struct statfs st;

	if (fstatfs(fd, &st))
		return 0;
	for (size_t i = 0; i < sizeof(local) / sizeof(*local); i++)
		if ((unsigned long)st.f_type == local[i])
			return 1;
	return 0;
}

#ifndef __NR_openat2
#define __NR_openat2 437
#endif

/* <linux/openat2.h>, which older headers lack. */
#define RESOLVE_CACHED_FLAG 0x20
struct open_how_abi {
	uint64_t flags;
	uint64_t mode;
	uint64_t resolve;
};

static int open_if_cached(int dirfd, const char *path, int flags)
{
	struct open_how_abi how = {
		.flags = (uint64_t)(unsigned)flags,
		.resolve = RESOLVE_CACHED_FLAG,
	};

	return (int)syscall(__NR_openat2, dirfd, path, &how, sizeof(how));
}

static int is_among(const uint64_t *mounts, int n, uint64_t mount)
{
	for (int i = 0; i < n; i++)
		if (mounts[i] == mount)
			return 1;
	return 0;
}

static int is_regular_and_local(int fd, const uint64_t *local_mounts, int n, uf_identity *identity)
{
	return !uf_identify(fd, identity) && S_ISREG(identity->mode) &&
	       is_among(local_mounts, n, identity->mount);
}

int uf_open_if_regular(int dirfd, const char *path, int flags, const uint64_t *local_mounts, int n,
		       uf_identity *identity)
{
	int path_fd, allowed, fd;

	/* To open a FIFO or a device, or on NFS or FUSE, may wait: look first. */
	path_fd = open_if_cached(dirfd, path, O_PATH | O_CLOEXEC);
	if (path_fd < 0)
		return -EAGAIN;
	allowed = is_regular_and_local(path_fd, local_mounts, n, identity);
	close(path_fd);
	if (!allowed)
		return -EAGAIN;
	/* The path may lead elsewhere by now: O_NONBLOCK. */
	fd = open_if_cached(dirfd, path, flags | O_NONBLOCK);
	return fd < 0 ? -EAGAIN : fd;
}

int uf_open_directory_cached(const char *path)
{
	return open_if_cached(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int uf_open_cached(const char *path, int flags, const uint64_t *local_mounts, int n)
{
	uf_identity identity;
	int fd = uf_open_if_regular(AT_FDCWD, path, flags, local_mounts, n, &identity);

	if (fd < 0)
		return fd;
	if (!is_regular_and_local(fd, local_mounts, n, &identity) ||
	    fcntl(fd, F_SETFL, flags & ~O_NONBLOCK)) {
		close(fd);
		return -EAGAIN;
	}
	return fd;
}

int uf_open_path_cached(const char *path, int flags, const uint64_t *local_mounts, int n,
			uint64_t *mount)
{
	uf_identity identity;
	int fd = open_if_cached(AT_FDCWD, path, O_PATH | O_CLOEXEC | flags);

	/* Also that something is not there the kernel says from its cache alone. */
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG ? -errno
										    : -EAGAIN;
	if (uf_identify(fd, &identity) || !identity.mount) {
		close(fd);
		return -EAGAIN;
	}
	if (is_among(local_mounts, n, identity.mount))
		return fd;
	*mount = identity.mount;
	close(fd);
	return -EXDEV;
}
