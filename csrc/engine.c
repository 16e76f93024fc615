/* The half of the contract that does not depend on the engine: checks,
 * accounting, the eventfd, and the read that needs no engine. */
#include "engine.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

unsigned uf_forks;

static void count_fork(void)
{
	uf_forks++;
	uf_closes = 0; /* no thread came along */
}

static pthread_once_t atfork_once = PTHREAD_ONCE_INIT;
static int atfork_error;

static void register_atfork(void)
{
	atfork_error = pthread_atfork(NULL, NULL, count_fork);
}

static const struct uf_engine_ops *ops_of(int kind)
{
	switch (kind) {
	case UF_IO_URING:
		return &uf_uring_ops;
	case UF_POSIX_AIO:
		return &uf_posix_aio_ops;
	default:
		return NULL;
	}
}

int uf_eventfd_open(int flags)
{
	int fault = (int)uf_fault(UF_FAULT_EVENTFD);
	int fd = fault ? fault : eventfd(0, EFD_CLOEXEC | flags);

	return fd < 0 && !fault ? -errno : fd;
}

int uf_open(int kind, unsigned entries, unsigned sqpoll_ms, uf_engine **out, const char **step)
{
	const struct uf_engine_ops *ops = ops_of(kind);
	uf_engine *engine;
	int ret;

	*step = "arguments";
	if (!ops || !entries || entries > 4096)
		return -EINVAL;
	*step = "pthread_atfork";
	pthread_once(&atfork_once, register_atfork);
	if (atfork_error)
		return -atfork_error;
	*step = "malloc";
	engine = uf_calloc(1, ops->size);
	if (!engine)
		return -ENOMEM;
	engine->ops = ops;
	engine->forks = uf_forks;
	*step = "eventfd";
	engine->eventfd = uf_eventfd_open(EFD_NONBLOCK);
	if (engine->eventfd < 0) {
		ret = engine->eventfd;
		uf_free(engine);
		return ret;
	}
	ret = ops->open(engine, entries, sqpoll_ms, step);
	if (ret) {
		close(engine->eventfd);
		uf_free(engine);
		return ret;
	}
	*out = engine;
	return 0;
}

void uf_describe(const uf_engine *engine, uf_info *info)
{
	engine->ops->describe(engine, info);
	info->capacity = engine->capacity;
	info->worker_share = engine->worker_share;
	info->opcodes = engine->opcodes;
}

int uf_eventfd(const uf_engine *engine)
{
	return engine->eventfd;
}

static int forked(const uf_engine *engine)
{
	return engine->forks != uf_forks;
}

/* Why no call may go through: destroyed, or opened by the parent. */
static int refused(const uf_engine *engine)
{
	if (!engine)
		return -ESHUTDOWN;
	return forked(engine) ? -ECHILD : 0;
}

int uf_offer(uf_engine *engine, struct uf_op *op)
{
	int64_t fault;
	int ret;

	if ((op->opcode == UF_READ || op->opcode == UF_WRITE) && op->len > UF_MAX_TRANSFER)
		op->len = UF_MAX_TRANSFER;
	fault = uf_fault_offered(op);
	ret = engine->ops->submit(engine, op);
	if (ret)
		return ret;
	uf_fault_accepted(engine, op, fault);
	engine->in_flight++;
	return 0;
}

int uf_submit(uf_engine *engine, int opcode, int fd, void *addr, uint64_t len, int64_t offset,
	      int64_t token)
{
	const int flags = UF_ASYNC | UF_BATCH;
	struct uf_op op = {
		.opcode = opcode & ~flags,
		.flags = opcode & flags,
		.fd = fd,
		.addr = addr,
		.len = len,
		.offset = offset,
		.token = token,
	};
	int ret = refused(engine);

	if (ret)
		return ret;
	if (engine->shut)
		return -ESHUTDOWN;
	if (op.opcode < 0 || op.opcode >= UF_OPCODES || token < 0 || token >> 62 || offset < 0)
		return -EINVAL;
	if (!(engine->opcodes & (1u << op.opcode)))
		return -EOPNOTSUPP;
	if (engine->in_flight >= engine->capacity)
		return -EAGAIN;
	return opcode & UF_BATCH ? uf_batch_submit(engine, &op) : uf_offer(engine, &op);
}

#define PATIENCE_NS 1000000000

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Whether to flush again would be in vain, too: out of threads or memory, which nothing in
 * flight can give back. */
static int in_vain(uf_engine *engine, int error)
{
	if (error != -EINTR && engine->in_flight > engine->ops->staged(engine)) {
		engine->refused_since = 0;
		return 0;
	}
	if (uf_fault(UF_FAULT_PATIENCE))
		return 1;
	if (!engine->refused_since)
		engine->refused_since = now_ns();
	return now_ns() - engine->refused_since >= PATIENCE_NS;
}

int uf_flush(uf_engine *engine)
{
	int ret = refused(engine);

	if (ret)
		return ret;
	do {
		ret = engine->ops->flush(engine);
	} while (ret >= 0 && uf_batch_stage(engine));
	/* Nobody is told of -EINTR: who sees it asks again. */
	if (ret < 0 && in_vain(engine, ret)) {
		int n = engine->ops->fail_staged(engine, ret == -EINTR ? -EAGAIN : ret);

		if (!engine->ops->staged(engine)) /* else the thread of SQPOLL may take it */
			ret = n;
	}
	if (ret >= 0)
		engine->refused_since = 0;
	return ret < 0 ? ret : ret + (int)engine->batches.n_done;
}

int uf_reap(uf_engine *engine, uf_completion *out, int max, int drain)
{
	uint64_t count;
	int n = refused(engine);

	if (n)
		return n;
	/* Drain before looking: a completion that arrives in between makes the
	 * eventfd readable again, so no wake-up is lost. EAGAIN is no error. */
	if (drain && read(engine->eventfd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	n = engine->ops->reap(engine, out, max);
	if (n < 0)
		return n;
	n = uf_fault_completions(engine, out, n, max);
	/* One too many must not make it wrap: then nothing would ever be accepted again. */
	engine->in_flight -= (unsigned)n < engine->in_flight ? (unsigned)n : engine->in_flight;
	n = uf_batch_settle(engine, out, n, max);
	/* There is room again for the rest of a batch, which may complete at once. */
	if ((uf_batch_stage(engine) && uf_flush(engine)) || engine->batches.n_done)
		uf_signal(engine);
	return n;
}

int uf_cancel(uf_engine *engine, int64_t token)
{
	int ret = refused(engine);
	int found;

	if (ret)
		return ret;
	ret = uf_batch_cancel(engine, token, &found);
	return found ? ret : engine->ops->cancel(engine, token);
}

int uf_forget_fd(uf_engine *engine, int fd, int *out, int max)
{
	if (refused(engine) || !engine->ops->forget_fd)
		return 0;
	return engine->ops->forget_fd(engine, fd, out, max);
}

int uf_shutdown(uf_engine *engine)
{
	int ret = refused(engine);

	if (!ret)
		engine->shut = 1;
	return ret;
}

int uf_wait(uf_engine *engine, int timeout_ms)
{
	struct pollfd poll_fd = { .events = POLLIN };
	int ret = refused(engine);

	if (ret)
		return ret;
	poll_fd.fd = engine->eventfd;
	ret = poll(&poll_fd, 1, timeout_ms);
	if (ret < 0)
		return errno == EINTR ? 0 : -errno;
	return ret > 0;
}

void uf_destroy(uf_engine *engine)
{
	int eventfd = engine->eventfd;

	engine->ops->destroy(engine, forked(engine));
	close(eventfd);
}

void uf_signal(const uf_engine *engine)
{
	uint64_t one = 1;
	ssize_t ret = write(engine->eventfd, &one, sizeof(one));

	(void)ret;
}

/* Reads of a tmpfs, which has no RWF_NOWAIT, are tried up to this size. Its pages may be
 * swapped out, but so may those of the buffer. */
#define IN_MEMORY (256 * 1024)

/* Only files of a tmpfs (and of hugetlbfs) have seals; to ask for its name could keep a
 * FUSE file system's caller waiting. */
static int is_in_memory(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0;
}

/* preadv2(2) by its number: musl has the function only from 1.2.5 on. */
static ssize_t read_cached(int fd, const struct iovec *iov, int64_t offset)
{
	ssize_t ret =
		syscall(SYS_preadv2, fd, iov, 1, (long)offset, (long)(offset >> 32), RWF_NOWAIT);

	if (ret < 0 && errno == ENOSYS) /* before Linux 4.6 */
		errno = EOPNOTSUPP;
	return ret;
}

int64_t uf_read_nowait(int fd, void *addr, uint64_t len, int64_t offset)
{
	int64_t fault = uf_fault(UF_FAULT_NOWAIT);
	struct iovec iov = { .iov_base = addr, .iov_len = len };
	ssize_t ret;

	if (fault < 0)
		return fault;
	if (fault && (uint64_t)fault < len)
		len = iov.iov_len = (size_t)fault;
	ret = read_cached(fd, &iov, offset);
	if (ret < 0 && errno == EOPNOTSUPP && is_in_memory(fd)) {
		if (len > IN_MEMORY)
			return -EAGAIN;
		ret = pread(fd, addr, len, offset);
	}
	return ret < 0 ? -errno : ret;
}

int64_t uf_read_on_ring(uf_engine *const *at, int fd, void *addr, uint64_t len, int64_t offset)
{
	uf_engine *engine = *at;
	int64_t ret = refused(engine);

	if (ret)
		return ret;
	if (len > UF_MAX_TRANSFER)
		len = UF_MAX_TRANSFER;
	if (engine->ops->read_nowait) {
		ret = engine->ops->read_nowait(engine, fd, addr, len, offset);
		if (ret != -EBUSY)
			return ret;
	}
	return uf_read_nowait(fd, addr, len, offset);
}

/* How many of these requests, from the first on, are one range of at most room bytes. */
static int neighbours(const int64_t *sizes, const int64_t *offsets, int n, int64_t room)
{
	int64_t length = 0;
	int i = 0;

	while (i < n && sizes[i] > 0 && sizes[i] <= room - length && offsets[i] >= 0 &&
	       offsets[i] - offsets[0] == length)
		length += sizes[i++];
	return i;
}

int uf_read_many_nowait(int fd, char *memory, int64_t room, const int64_t *sizes,
			const int64_t *offsets, int n)
{
	int served = 0;

	for (;;) {
		int next = served;
		int end = served + neighbours(sizes + served, offsets + served, n - served, room);
		int64_t length = 0, got;

		while (next < end)
			length += sizes[next++];
		if (!length)
			return served;
		got = uf_read_nowait(fd, memory, (uint64_t)length, offsets[served]);
		memory += length;
		room -= length;
		while (served < end && got >= sizes[served])
			got -= sizes[served++];
		if (served < end)
			return served;
	}
}
