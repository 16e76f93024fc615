/* The shared memory of an io_uring and its three system calls; knows nothing
 * of engines. Fields that the kernel writes or reads carry a k. */
#ifndef UF_RING_H
#define UF_RING_H

#include <stddef.h>
#include <stdint.h>

#include "uring_abi.h"

struct uf_ring {
	int fd;
	unsigned entries;
	unsigned cq_entries;
	unsigned features;
	unsigned setup_flags;

	unsigned *ksq_head;
	unsigned *ksq_tail;
	unsigned *ksq_flags;
	unsigned sq_mask;
	unsigned sq_tail; /* ours; published to ksq_tail by submit */
	struct io_uring_sqe *sqes;

	unsigned *kcq_head;
	unsigned *kcq_tail;
	unsigned *kcq_flags; /* NULL before Linux 5.8 */
	unsigned cq_mask;
	struct io_uring_cqe *cqes;

	void *rings;
	size_t rings_size;
	size_t sqes_size;
};

/* 0 or -errno; *step names the call that was refused. idle_ms: how long the thread
 * of IORING_SETUP_SQPOLL looks for work before it sleeps. */
int uf_ring_open(struct uf_ring *ring, unsigned entries, unsigned cq_entries, unsigned setup_flags,
		 unsigned idle_ms, const char **step);
/* forked: only drop this process's copy of the descriptor. */
void uf_ring_close(struct uf_ring *ring, int forked);

int uf_ring_register(struct uf_ring *ring, unsigned opcode, void *arg, unsigned count);

/* A zeroed sqe, or NULL when the submission queue is full. */
struct io_uring_sqe *uf_ring_next_sqe(struct uf_ring *ring);
unsigned uf_ring_staged(const struct uf_ring *ring);

/* Let the kernel consume everything staged: 0 or -errno. With SQPOLL its thread does
 * so a little later; there is room for another sqe, all the same. */
int uf_ring_submit(struct uf_ring *ring);

/* Withdraw the newest staged sqe that the kernel will not consume, or NULL. */
const struct io_uring_sqe *uf_ring_unstage(struct uf_ring *ring);

/* Whether there is deferred completion work, or completions beyond the queue. */
int uf_ring_pending(const struct uf_ring *ring);

/* Run deferred completion work and move overflowed completions into the queue: 0 or
 * -errno. run_pending does so when there is any. */
int uf_ring_get_events(struct uf_ring *ring);
void uf_ring_run_pending(struct uf_ring *ring);

unsigned uf_ring_ready(const struct uf_ring *ring);
/* Block until a cqe is there or timeout_ms has passed. */
void uf_ring_wait(const struct uf_ring *ring, int timeout_ms);
/* The oldest cqe, then give its place back to the kernel. ready must be above 0. */
const struct io_uring_cqe *uf_ring_peek(const struct uf_ring *ring);
void uf_ring_advance(struct uf_ring *ring);
/* Look for a cqe between others: NULL, or one whose user_data may be overwritten, as its
 * place is given back in its turn only. */
struct io_uring_cqe *uf_ring_find(struct uf_ring *ring, uint64_t user_data);

#endif
