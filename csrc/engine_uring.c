/* The engine on io_uring: one sqe for each operation, one cqe for each
 * completion, and the ring's own eventfd registration. */
#include "engine.h"
#include "ring.h"
#include "uring_sqe.h"

#include <string.h>
#include <unistd.h>
#include <sys/uio.h>

/* The completion queue is this much larger than the submission queue, so that
 * operations which hang do not take the room of those that do not. Half of it
 * is for operations, half for the cqes of cancel requests. */
#define CQ_FACTOR 32

/* io-wq grants 4 bounded workers for each core: on two cores, eight operations that
 * hang would hold up every write and fsync of the ring. */
#define BOUNDED_WORKERS 128

/* Each ASYNC operation that hangs keeps a worker. For reads and writes Linux 6.18 has
 * no bound but RLIMIT_NPROC (600 hung reads: 600 threads); older kernels have the one
 * above. */
#define WORKERS_OF_A_FILE 32

/* Of cqes that nobody is told of. */
#define CANCEL_TOKEN UINT64_MAX

#define INLINE_TOKEN (UINT64_MAX - 1)

struct uring_engine {
	struct uf_engine base;
	struct uf_ring ring;
	/* Completions of operations that the kernel refused to take at flush. */
	uf_completion *failed;
	unsigned n_failed;
};

static struct uring_engine *of(uf_engine *engine)
{
	return (struct uring_engine *)engine;
}

/* Newest first: what an older kernel does not know it refuses with EINVAL. */
static const unsigned setup_flags[] = {
	IORING_SETUP_SQPOLL | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_SQPOLL,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL,
	0,
};

/* SQPOLL may be refused by itself: to the unprivileged (EPERM, before Linux 5.13), or
 * for lack of threads (EAGAIN). */
static int may_do_with_less(int error, unsigned flags)
{
	return error == -EINVAL || (flags & IORING_SETUP_SQPOLL && error && error != -ENOMEM);
}

static int open_ring(struct uf_ring *ring, unsigned entries, unsigned sqpoll_ms, const char **step)
{
	int ret = -EINVAL;

	while (entries) {
		for (size_t i = 0; i < sizeof(setup_flags) / sizeof(*setup_flags); i++) {
			if (setup_flags[i] & IORING_SETUP_SQPOLL && !sqpoll_ms)
				continue;
			ret = uf_ring_open(ring, entries, entries * CQ_FACTOR, setup_flags[i],
					   sqpoll_ms, step);
			if (!may_do_with_less(ret, setup_flags[i]))
				break;
		}
		if (ret != -ENOMEM)
			break;
		entries /= 2; /* RLIMIT_MEMLOCK: a smaller ring may still fit */
	}
	return ret;
}

static int probe(struct uring_engine *engine)
{
	const unsigned n = 256;
	struct io_uring_probe *p = uf_calloc(1, sizeof(*p) + n * sizeof(p->ops[0]));
	int ret;

	if (!p)
		return -ENOMEM;
	ret = uf_ring_register(&engine->ring, IORING_REGISTER_PROBE, p, n);
	for (int i = 0; !ret && i < UF_OPCODES; i++)
		if (p->ops[uf_sqe_opcode[i]].flags & IO_URING_OP_SUPPORTED)
			engine->base.opcodes |= 1u << i;
	uf_free(p);
	if (ret)
		return ret;
	return engine->base.opcodes & (1u << UF_READ) ? 0 : -EOPNOTSUPP;
}

static int passing(int error)
{
	return error == -EAGAIN || error == -EBUSY || error == -ENOMEM || error == -EINTR;
}

/* How long the thread of SQPOLL may take; without it the completion is there at once. */
#define ROUND_TRIP_MS 5000

/* A filter may allow the set-up and refuse io_uring_enter: try it. */
static int round_trip(struct uf_ring *ring)
{
	struct io_uring_sqe *sqe = uf_ring_next_sqe(ring);
	int tries = 100;
	int ret;

	do { /* with SQPOLL submit may go without the call */
		ret = uf_ring_get_events(ring);
	} while (passing(ret) && --tries);
	if (ret)
		return ret;
	sqe->opcode = IORING_OP_NOP;
	sqe->user_data = CANCEL_TOKEN;
	do {
		ret = uf_ring_submit(ring);
	} while (passing(ret) && --tries);
	if (ret)
		return ret;
	if (!uf_ring_ready(ring))
		uf_ring_wait(ring, ROUND_TRIP_MS);
	if (!uf_ring_ready(ring))
		return -EIO;
	ret = uf_ring_peek(ring)->res;
	uf_ring_advance(ring);
	return ret;
}

static int uring_open(uf_engine *base, unsigned entries, unsigned sqpoll_ms, const char **step)
{
	struct uring_engine *engine = of(base);
	struct uf_ring *ring = &engine->ring;
	unsigned workers[2] = { BOUNDED_WORKERS, 0 };
	int ret;

	ret = open_ring(ring, entries, sqpoll_ms, step);
	if (ret)
		return ret;
	base->capacity = ring->cq_entries / 2;
	base->worker_share = WORKERS_OF_A_FILE;
	*step = "io_uring_register(PROBE)";
	ret = probe(engine);
	if (ret)
		goto fail;
	*step = "io_uring_enter";
	ret = round_trip(ring);
	if (ret)
		goto fail;
	*step = "io_uring_register(EVENTFD)";
	ret = uf_ring_register(ring, IORING_REGISTER_EVENTFD, &base->eventfd, 1);
	if (ret)
		goto fail;
	*step = "malloc";
	ret = -ENOMEM;
	engine->failed = uf_calloc(ring->entries, sizeof(*engine->failed));
	if (!engine->failed)
		goto fail;
	/* Linux 5.15; without it the kernel's own limit holds. */
	uf_ring_register(ring, UF_REGISTER_IOWQ_MAX_WORKERS, workers, 2);
	return 0;
fail:
	uf_ring_close(ring, 0);
	return ret;
}

static void uring_describe(const uf_engine *base, uf_info *info)
{
	const struct uf_ring *ring = &((const struct uring_engine *)base)->ring;

	info->entries = ring->entries;
	info->features = ring->features;
	info->setup_flags = ring->setup_flags;
}

static int uring_submit(uf_engine *base, const struct uf_op *op)
{
	struct io_uring_sqe *sqe = uf_ring_next_sqe(&of(base)->ring);

	if (!sqe)
		return -EAGAIN;
	uf_prepare(sqe, op);
	return 0;
}

/* The kernel takes nothing any more (the ring's fd was closed under us, a
 * filter was installed): what is staged completes with that error; but what
 * the thread of SQPOLL may still take stays in flight. A descriptor is closed in any
 * case: nobody else knows that it is still open. */
static int uring_fail_staged(uf_engine *base, int error)
{
	struct uring_engine *engine = of(base);
	const struct io_uring_sqe *sqe;

	/* There is room for the failures of one flush. */
	if (engine->n_failed)
		return -EBUSY;
	while ((sqe = uf_ring_unstage(&engine->ring))) {
		if (sqe->user_data == CANCEL_TOKEN)
			continue;
		engine->failed[engine->n_failed].token = (int64_t)sqe->user_data;
		engine->failed[engine->n_failed++].result =
			sqe->opcode == IORING_OP_CLOSE && !close(sqe->fd) ? 0 : error;
	}
	uf_signal(base);
	return (int)(uf_ring_ready(&engine->ring) + engine->n_failed);
}

static int uring_flush(uf_engine *base)
{
	struct uring_engine *engine = of(base);
	int ret;

	if (engine->n_failed)
		return -EBUSY;
	ret = uf_ring_submit(&engine->ring);
	if (ret)
		return passing(ret) ? ret : uring_fail_staged(base, ret);
	return (int)uf_ring_ready(&engine->ring);
}

static unsigned uring_staged(const uf_engine *base)
{
	return uf_ring_staged(&((const struct uring_engine *)base)->ring);
}

static int uring_reap(uf_engine *base, uf_completion *out, int max)
{
	struct uring_engine *engine = of(base);
	struct uf_ring *ring = &engine->ring;
	int n = 0;

	while (n < max && engine->n_failed)
		out[n++] = engine->failed[--engine->n_failed];
	uf_ring_run_pending(ring);
	while (n < max && uf_ring_ready(ring)) {
		const struct io_uring_cqe *cqe = uf_ring_peek(ring);

		if (cqe->user_data != CANCEL_TOKEN) {
			out[n].token = (int64_t)cqe->user_data;
			out[n++].result = cqe->res;
		}
		uf_ring_advance(ring);
	}
	if (engine->n_failed || uf_ring_ready(ring) || uf_ring_pending(ring))
		uf_signal(base);
	return n;
}

static int uring_cancel(uf_engine *base, int64_t token)
{
	struct uf_ring *ring = &of(base)->ring;
	struct io_uring_sqe *sqe = uf_ring_next_sqe(ring);

	if (!sqe) {
		if (uring_flush(base) < 0)
			return -EAGAIN;
		sqe = uf_ring_next_sqe(ring);
	}
	if (!sqe)
		return -EAGAIN;
	sqe->opcode = IORING_OP_ASYNC_CANCEL;
	sqe->fd = -1;
	sqe->addr = (uint64_t)token;
	sqe->user_data = CANCEL_TOKEN;
	return 0;
}

/* The completion of the read that was submitted last, which RWF_NOWAIT keeps from waiting;
 * NULL when the kernel did not take it. */
static struct io_uring_cqe *find_inline(struct uf_ring *ring)
{
	struct io_uring_cqe *cqe = uf_ring_find(ring, INLINE_TOKEN);

	if (!cqe && uf_ring_unstage(ring))
		return NULL;
	while (!cqe) { /* a kernel that waits all the same: the buffer is not ours yet */
		uf_ring_wait(ring, 1);
		uf_ring_run_pending(ring);
		cqe = uf_ring_find(ring, INLINE_TOKEN);
	}
	return cqe;
}

static int64_t uring_read_nowait(uf_engine *base, int fd, void *addr, uint64_t len, int64_t offset)
{
	struct uf_ring *ring = &of(base)->ring;
	unsigned before = uf_ring_ready(ring);
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int64_t result;

	/* SQPOLL answers later; and no completion may go beyond the queue. */
	if (ring->setup_flags & IORING_SETUP_SQPOLL || before >= ring->cq_entries / 4)
		return -EBUSY;
	sqe = uf_ring_next_sqe(ring);
	if (!sqe)
		return -EBUSY;
	sqe->opcode = IORING_OP_READ;
	sqe->fd = fd;
	sqe->addr = (uintptr_t)addr;
	sqe->len = (uint32_t)len;
	sqe->off = (uint64_t)offset;
	sqe->rw_flags = RWF_NOWAIT;
	sqe->user_data = INLINE_TOKEN;
	uf_ring_submit(ring);
	cqe = find_inline(ring);
	result = cqe ? cqe->res : -EBUSY;
	if (cqe == uf_ring_peek(ring)) {
		uf_ring_advance(ring);
	} else if (cqe) { /* others stand before it */
		cqe->user_data = CANCEL_TOKEN;
		before++;
	}
	/* The eventfd told of nothing that completed during the call. */
	if (uf_ring_ready(ring) > before)
		uf_signal(base);
	return result;
}

static void uring_destroy(uf_engine *base, int forked)
{
	struct uring_engine *engine = of(base);

	uf_ring_close(&engine->ring, forked);
	uf_free(engine->failed);
	uf_free(engine);
}

const struct uf_engine_ops uf_uring_ops = {
	.open = uring_open,
	.describe = uring_describe,
	.submit = uring_submit,
	.flush = uring_flush,
	.staged = uring_staged,
	.fail_staged = uring_fail_staged,
	.reap = uring_reap,
	.cancel = uring_cancel,
	.read_nowait = uring_read_nowait,
	.destroy = uring_destroy,
	.size = sizeof(struct uring_engine),
};
