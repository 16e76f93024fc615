#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "ring.h"

#include "fault.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int sys_setup(unsigned entries, struct io_uring_params *params)
{
	int fault = (int)uf_fault(UF_FAULT_SETUP);
	int ret = fault ? fault : (int)syscall(__NR_io_uring_setup, entries, params);

	return ret < 0 && !fault ? -errno : ret;
}

static int sys_enter(int fd, unsigned to_submit, unsigned flags)
{
	int64_t fault = uf_fault(UF_FAULT_ENTER);
	int ret;

	if (fault)
		return fault < 0 ? (int)fault : 0;
	ret = (int)syscall(__NR_io_uring_enter, fd, to_submit, 0, flags, NULL, 0);
	return ret < 0 ? -errno : ret;
}

int uf_ring_register(struct uf_ring *ring, unsigned opcode, void *arg, unsigned count)
{
	int fault = (int)uf_fault(UF_FAULT_REGISTER);
	int ret =
		fault ? fault : (int)syscall(__NR_io_uring_register, ring->fd, opcode, arg, count);

	return ret < 0 && !fault ? -errno : ret;
}

/* A child must not inherit these pages: they are MAP_SHARED, and a child that
 * touched them would corrupt its parent's ring. */
static void *map(int fd, size_t size, off_t what)
{
	void *p = MAP_FAILED;

	if (!uf_fault(UF_FAULT_MMAP))
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
	if (p == MAP_FAILED)
		return NULL;
	if (uf_fault(UF_FAULT_MMAP) || madvise(p, size, MADV_DONTFORK)) {
		munmap(p, size);
		return NULL;
	}
	return p;
}

static size_t rings_size(const struct io_uring_params *params)
{
	size_t sq = params->sq_off.array + params->sq_entries * sizeof(unsigned);
	size_t cq = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);

	return sq > cq ? sq : cq;
}

static void *at(void *base, unsigned offset)
{
	return (char *)base + offset;
}

static void point_into(struct uf_ring *ring, const struct io_uring_params *params)
{
	void *rings = ring->rings;
	unsigned *array = at(rings, params->sq_off.array);

	ring->ksq_head = at(rings, params->sq_off.head);
	ring->ksq_tail = at(rings, params->sq_off.tail);
	ring->ksq_flags = at(rings, params->sq_off.flags);
	ring->sq_mask = params->sq_entries - 1;
	ring->kcq_head = at(rings, params->cq_off.head);
	ring->kcq_tail = at(rings, params->cq_off.tail);
	if (params->cq_off.flags)
		ring->kcq_flags = at(rings, params->cq_off.flags);
	ring->cq_mask = params->cq_entries - 1;
	ring->cqes = at(rings, params->cq_off.cqes);
	for (unsigned i = 0; i < params->sq_entries; i++)
		array[i] = i;
}

int uf_ring_open(struct uf_ring *ring, unsigned entries, unsigned cq_entries, unsigned setup_flags,
		 unsigned idle_ms, const char **step)
{
	struct io_uring_params params = {
		.flags = setup_flags | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
		.cq_entries = cq_entries,
		.sq_thread_idle = idle_ms,
	};
	unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP;
	int ret;

	if (setup_flags & IORING_SETUP_SQPOLL)
		needed |= IORING_FEAT_SQPOLL_NONFIXED; /* Linux 5.11 */
	memset(ring, 0, sizeof(*ring));
	*step = "io_uring_setup";
	ring->fd = sys_setup(entries, &params);
	if (ring->fd < 0)
		return ring->fd;
	ring->entries = params.sq_entries;
	ring->cq_entries = params.cq_entries;
	ring->features = params.features;
	ring->setup_flags = params.flags;
	*step = "io_uring features";
	if ((params.features & needed) != needed) {
		ret = -ENOSYS;
		goto fail;
	}
	*step = "mmap of the ring";
	ret = -ENOMEM;
	ring->rings_size = rings_size(&params);
	ring->rings = map(ring->fd, ring->rings_size, IORING_OFF_SQ_RING);
	if (!ring->rings)
		goto fail;
	ring->sqes_size = params.sq_entries * sizeof(struct io_uring_sqe);
	ring->sqes = map(ring->fd, ring->sqes_size, IORING_OFF_SQES);
	if (!ring->sqes)
		goto fail;
	point_into(ring, &params);
	return 0;
fail:
	uf_ring_close(ring, 0);
	return ret;
}

void uf_ring_close(struct uf_ring *ring, int forked)
{
	if (!forked && ring->sqes)
		munmap(ring->sqes, ring->sqes_size);
	if (!forked && ring->rings)
		munmap(ring->rings, ring->rings_size);
	close(ring->fd);
}

struct io_uring_sqe *uf_ring_next_sqe(struct uf_ring *ring)
{
	/* Acquire, with the kernel's release of head: it has done with the sqe. */
	unsigned head = __atomic_load_n(ring->ksq_head, __ATOMIC_ACQUIRE);
	struct io_uring_sqe *sqe;

	if (ring->sq_tail - head >= ring->entries)
		return NULL;
	sqe = &ring->sqes[ring->sq_tail++ & ring->sq_mask];
	memset(sqe, 0, sizeof(*sqe));
	return sqe;
}

unsigned uf_ring_staged(const struct uf_ring *ring)
{
	return ring->sq_tail - __atomic_load_n(ring->ksq_head, __ATOMIC_ACQUIRE);
}

static int polled(const struct uf_ring *ring)
{
	return !!(ring->setup_flags & IORING_SETUP_SQPOLL);
}

/* A call that is interrupted, or that did nothing, is made again at once, but not for
 * ever: the caller is an event loop, which can do so later. */
#define MOST_TRIES 16

/* SQPOLL: from the store of tail on, the kernel's thread takes the sqes when it likes. */
static int hand_to_thread(struct uf_ring *ring)
{
	int tries = MOST_TRIES;
	int ret = 0;

	/* Release, with the thread's acquire of tail: the sqes are written. */
	__atomic_store_n(ring->ksq_tail, ring->sq_tail, __ATOMIC_RELEASE);
	/* Full fence, with the thread's own between setting NEED_WAKEUP and its last
	 * look at tail: either it sees the sqes, or the flag is seen here. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(ring->ksq_flags, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP)
		ret = sys_enter(ring->fd, uf_ring_staged(ring), IORING_ENTER_SQ_WAKEUP);
	while (ret >= 0 && uf_ring_staged(ring) >= ring->entries) {
		/* Older kernels take nothing while completions overflow. */
		if (uf_ring_pending(ring))
			return -EBUSY;
		if (!tries--)
			return -EAGAIN;
		ret = sys_enter(ring->fd, 0, IORING_ENTER_SQ_WAIT);
		if (ret == -EINTR)
			ret = 0;
	}
	return ret < 0 ? ret : 0;
}

static void set_cq_flags(struct uf_ring *ring, unsigned flags)
{
	if (ring->kcq_flags)
		__atomic_store_n(ring->kcq_flags, flags, __ATOMIC_RELAXED);
}

int uf_ring_submit(struct uf_ring *ring)
{
	unsigned staged = uf_ring_staged(ring);
	int tries = MOST_TRIES;
	int ret = 0;

	if (!staged)
		return 0;
	if (polled(ring))
		return hand_to_thread(ring);
	/* Release, with the kernel's acquire of tail: the sqes are written. */
	__atomic_store_n(ring->ksq_tail, ring->sq_tail, __ATOMIC_RELEASE);
	/* What completes during the call is seen by the caller's own look at the
	 * queue, so the eventfd need not be signalled for it. */
	set_cq_flags(ring, IORING_CQ_EVENTFD_DISABLED);
	while (staged) {
		ret = sys_enter(ring->fd, staged, 0);
		if (ret == -EINTR && --tries)
			continue;
		if (ret <= 0)
			break;
		staged = uf_ring_staged(ring);
	}
	set_cq_flags(ring, 0);
	/* Full fence, with the kernel's own between posting a cqe and reading
	 * cq_flags: either it sees the flag cleared and signals, or the caller's
	 * look at the completion queue sees the cqe. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!staged)
		return 0;
	return ret ? ret : -EAGAIN;
}

const struct io_uring_sqe *uf_ring_unstage(struct uf_ring *ring)
{
	int published = ring->sq_tail == *ring->ksq_tail;

	/* SQPOLL: what is published may be taken any moment, also by a thread that sleeps. */
	if (!uf_ring_staged(ring) || (published && polled(ring)))
		return NULL;
	ring->sq_tail--;
	if (published)
		__atomic_store_n(ring->ksq_tail, ring->sq_tail, __ATOMIC_RELEASE);
	return &ring->sqes[ring->sq_tail & ring->sq_mask];
}

int uf_ring_pending(const struct uf_ring *ring)
{
	unsigned flags = __atomic_load_n(ring->ksq_flags, __ATOMIC_RELAXED);

	return !!(flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN));
}

int uf_ring_get_events(struct uf_ring *ring)
{
	return sys_enter(ring->fd, 0, IORING_ENTER_GETEVENTS);
}

void uf_ring_run_pending(struct uf_ring *ring)
{
	if (uf_ring_pending(ring))
		uf_ring_get_events(ring);
}

unsigned uf_ring_ready(const struct uf_ring *ring)
{
	/* Acquire, with the kernel's release of tail: the cqes are written. */
	return __atomic_load_n(ring->kcq_tail, __ATOMIC_ACQUIRE) - *ring->kcq_head;
}

void uf_ring_wait(const struct uf_ring *ring, int timeout_ms)
{
	struct pollfd poll_fd = { .fd = ring->fd, .events = POLLIN };

	poll(&poll_fd, 1, timeout_ms);
}

const struct io_uring_cqe *uf_ring_peek(const struct uf_ring *ring)
{
	return &ring->cqes[*ring->kcq_head & ring->cq_mask];
}

void uf_ring_advance(struct uf_ring *ring)
{
	/* Release, with the kernel's acquire of head: the cqe is copied out. */
	__atomic_store_n(ring->kcq_head, *ring->kcq_head + 1, __ATOMIC_RELEASE);
}

struct io_uring_cqe *uf_ring_find(struct uf_ring *ring, uint64_t user_data)
{
	unsigned ready = uf_ring_ready(ring);

	while (ready--) {
		struct io_uring_cqe *cqe = &ring->cqes[(*ring->kcq_head + ready) & ring->cq_mask];

		if (cqe->user_data == user_data)
			return cqe;
	}
	return NULL;
}
