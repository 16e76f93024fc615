/* What the engines share, and what each of them provides. */
#ifndef UF_ENGINE_H
#define UF_ENGINE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdint.h>
#include <stddef.h>

#include "engine_api.h"
#include "batch.h"
#include "fault_ops.h"

/* read(2), write(2): the most that one call moves (MAX_RW_COUNT). */
#define UF_MAX_TRANSFER 0x7ffff000u

struct uf_op {
	int opcode;
	unsigned flags; /* enum uf_submit_flag */
	int fd;
	void *addr;
	uint64_t len;
	int64_t offset;
	int64_t token;
};

/* One per engine, as fio's ioengines have it. Every function may rely on what
 * engine.c has checked: same process, not shut down, room in flight. */
struct uf_engine_ops {
	int (*open)(uf_engine *engine, unsigned entries, unsigned sqpoll_ms, const char **step);
	void (*describe)(const uf_engine *engine, uf_info *info);
	int (*submit)(uf_engine *engine, const struct uf_op *op);
	int (*flush)(uf_engine *engine);
	unsigned (*staged)(const uf_engine *engine);
	/* What is staged completes with the error. As flush. */
	int (*fail_staged)(uf_engine *engine, int error);
	int (*reap)(uf_engine *engine, uf_completion *out, int max);
	int (*cancel)(uf_engine *engine, int64_t token);
	/* As uf_read_nowait(); -EBUSY: not now. May be NULL. */
	int64_t (*read_nowait)(uf_engine *engine, int fd, void *addr, uint64_t len, int64_t offset);
	int (*forget_fd)(uf_engine *engine, int fd, int *out, int max);
	void (*destroy)(uf_engine *engine, int forked);
	size_t size; /* of the engine's own struct, whose first member is uf_engine */
};

struct uf_engine {
	const struct uf_engine_ops *ops;
	int eventfd;
	unsigned forks;	       /* uf_forks when it was opened */
	unsigned in_flight;    /* accepted and not yet reaped */
	int64_t refused_since; /* nanoseconds; 0: the last flush was not */
	unsigned capacity;
	unsigned worker_share; /* as in uf_info */
	unsigned opcodes;
	int shut;
	struct uf_batches batches;
#ifdef UF_FAULTS
	struct uf_faults faults;
#endif
};

/* Counts the forks behind this process, so that an engine knows without a
 * system call whether it was opened by this process or by an ancestor. */
extern unsigned uf_forks;

/* What uf_closing() answers. */
extern unsigned uf_closes;

extern const struct uf_engine_ops uf_uring_ops;
extern const struct uf_engine_ops uf_posix_aio_ops;

/* Give one operation to the engine, which must have room for it. */
int uf_offer(uf_engine *engine, struct uf_op *op);

/* eventfd(2): a descriptor or -errno. */
int uf_eventfd_open(int flags);

/* The first half of uf_open_cached(): the identity is that of a regular file which the path
 * led to before it was opened, with O_NONBLOCK. */
int uf_open_if_regular(int dirfd, const char *path, int flags, const uint64_t *local_mounts, int n,
		       uf_identity *identity);

/* With O_PATH, to begin at; below 0 if it is not cached. */
int uf_open_directory_cached(const char *path);

/* Make the eventfd readable. It cannot fail: the counter never gets near its
 * limit, and the descriptor is ours. */
void uf_signal(const uf_engine *engine);

#endif
