/* The engine on POSIX AIO.
 *
 *   flush:     aio_read(), aio_write(), aio_fsync() on a lane of the file, and
 *              the request goes to the notifier
 *   notifier:  one thread for each engine sleeps in aio_suspend(), moves what
 *              has ended to the list of ended requests, signals the eventfd
 *   reap:      empties that list
 *
 * Measured from C, O_DIRECT 4 KiB reads with 64 in flight on 16 lanes: SIGEV_THREAD,
 * which costs a thread for each completion, 37,000/s; this notifier 75,000/s.
 *
 * A forked child cannot use glibc's AIO if its parent did; there each request gets
 * a thread of its own (posix_threads.c). So does each where the C library is not glibc: musl's
 * AIO starts such a thread, too, but its aio_cancel() waits for what the thread does. */
#include "posix_aio.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* As many requests as this can hang before others must wait; settable only
 * before the first use in a process (aio_init(3)). */
#define WORKERS 128

static struct posix_aio_engine *of(uf_engine *engine)
{
	return (struct posix_aio_engine *)engine;
}

/* Only the first of a batch costs a system call. */
void uf_posix_end(struct posix_aio_engine *engine, struct request *request, int64_t result)
{
	request->result = result;
	request->next = NULL;
	*engine->ended_end = request;
	engine->ended_end = &request->next;
	if (!engine->n_ended++ && !engine->stop)
		uf_signal(&engine->base);
}

int uf_posix_spawn(pthread_t *thread, void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	int ret = (int)uf_fault(UF_FAULT_THREAD);

	if (ret)
		return ret;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -ret;
}

static int start(struct request *request)
{
	int ret = (int)uf_fault(UF_FAULT_AIO);

	if (ret)
		return ret;
	if (request->engine->thread_each)
		return uf_start_in_thread(request);
	switch (request->opcode) {
	case UF_READ:
		ret = aio_read(&request->cb);
		break;
	case UF_WRITE:
		ret = aio_write(&request->cb);
		break;
	case UF_FDATASYNC:
		ret = aio_fsync(O_DSYNC, &request->cb);
		break;
	default:
		ret = aio_fsync(O_SYNC, &request->cb);
		break;
	}
	return ret ? -errno : 0;
}

static int posix_aio_submit(uf_engine *base, const struct uf_op *op)
{
	struct posix_aio_engine *engine = of(base);
	struct request *request = engine->free;
	int ret;

	if (!request) /* the number in flight is wrong, after a completion too many */
		return -EAGAIN;
	ret = uf_lanes_take(&engine->lanes, op->fd, op->opcode == UF_WRITE, &request->lanes,
			    &request->lane);
	if (ret)
		return ret;
	engine->free = request->next;
	memset(&request->cb, 0, sizeof(request->cb));
	request->cb.aio_fildes = request->lane->fd;
	request->cb.aio_buf = op->addr;
	request->cb.aio_nbytes = op->len;
	request->cb.aio_offset = op->offset;
	request->cb.aio_sigevent.sigev_notify = SIGEV_NONE;
	request->token = op->token;
	request->opcode = op->opcode;
	request->live = 1;
	request->started = 0;
	request->unwanted = 0;
	request->next = NULL;
	*engine->staged_end = request;
	engine->staged_end = &request->next;
	return 0;
}

static void unstage_first(struct posix_aio_engine *engine)
{
	engine->staged = engine->staged->next;
	if (!engine->staged)
		engine->staged_end = &engine->staged;
}

static int posix_aio_flush(uf_engine *base)
{
	struct posix_aio_engine *engine = of(base);
	int ret = 0;

	pthread_mutex_lock(&engine->lock);
	while (engine->staged) {
		struct request *request = engine->staged;

		ret = start(request);
		if (ret == -EAGAIN)
			break;
		unstage_first(engine);
		if (ret) {
			uf_posix_end(engine, request, ret);
			continue;
		}
		request->started = ++engine->started;
		if (!engine->thread_each) {
			request->next = engine->fresh;
			engine->fresh = request;
		}
	}
	if (engine->fresh)
		uf_notifier_wake(engine);
	if (ret != -EAGAIN)
		ret = (int)engine->n_ended;
	pthread_mutex_unlock(&engine->lock);
	return ret;
}

static unsigned posix_aio_staged(const uf_engine *base)
{
	unsigned n = 0;

	for (struct request *request = ((const struct posix_aio_engine *)base)->staged; request;
	     request = request->next)
		n++;
	return n;
}

static int posix_aio_fail_staged(uf_engine *base, int error)
{
	struct posix_aio_engine *engine = of(base);
	int ret;

	pthread_mutex_lock(&engine->lock);
	while (engine->staged) {
		struct request *request = engine->staged;

		unstage_first(engine);
		uf_posix_end(engine, request, error);
	}
	ret = (int)engine->n_ended;
	pthread_mutex_unlock(&engine->lock);
	return ret;
}

static int posix_aio_reap(uf_engine *base, uf_completion *out, int max)
{
	struct posix_aio_engine *engine = of(base);
	int n = 0;

	pthread_mutex_lock(&engine->lock);
	while (n < max && engine->ended) {
		struct request *request = engine->ended;

		engine->ended = request->next;
		engine->n_ended--;
		out[n].token = request->token;
		out[n++].result = request->result;
		uf_lanes_give(&engine->lanes, request->lanes, request->lane, base->shut);
		request->live = 0;
		request->next = engine->free;
		engine->free = request;
	}
	if (!engine->ended)
		engine->ended_end = &engine->ended;
	else
		uf_signal(base);
	pthread_mutex_unlock(&engine->lock);
	return n;
}

static int any_live(const struct posix_aio_engine *engine)
{
	for (unsigned i = 0; i < CAPACITY; i++)
		if (engine->requests[i].live)
			return 1;
	return 0;
}

static struct request *find(struct posix_aio_engine *engine, int64_t token)
{
	for (unsigned i = 0; i < CAPACITY; i++)
		if (engine->requests[i].live && engine->requests[i].token == token)
			return &engine->requests[i];
	return NULL;
}

static void cancel_staged(struct posix_aio_engine *engine, struct request *request)
{
	struct request **link = &engine->staged;

	while (*link && *link != request)
		link = &(*link)->next;
	if (!*link)
		return; /* it has ended, and is not reaped yet */
	*link = request->next;
	if (!*link)
		engine->staged_end = link;
	pthread_mutex_lock(&engine->lock);
	uf_posix_end(engine, request, -ECANCELED);
	pthread_mutex_unlock(&engine->lock);
}

static struct request *last_of(struct posix_aio_engine *engine, const struct uf_lane *lane)
{
	struct request *last = NULL;

	for (unsigned i = 0; i < CAPACITY; i++) {
		struct request *request = &engine->requests[i];

		if (!request->live || !request->started || request->lane != lane ||
		    aio_error(&request->cb) != EINPROGRESS)
			continue;
		if (!last || request->started > last->started)
			last = request;
	}
	return last;
}

/* Whether the request will do nothing more.
 *
 * glibc (2.36) loses all that is queued behind a request which is cancelled while it waits for
 * a worker: the next one is marked as ready to run, and put into no list of such. So only
 * the last of a lane is cancelled; any other when it has become the last. */
static int stop(struct posix_aio_engine *engine, struct request *request)
{
	struct request *last;
	int ret = AIO_CANCELED;

	request->unwanted = 1;
	while (ret != AIO_NOTCANCELED && ret >= 0 && (last = last_of(engine, request->lane)) &&
	       last->unwanted)
		ret = aio_cancel(last->cb.aio_fildes, &last->cb);
	return aio_error(&request->cb) != EINPROGRESS;
}

static int posix_aio_cancel(uf_engine *base, int64_t token)
{
	struct posix_aio_engine *engine = of(base);
	struct request *request = find(engine, token);

	if (!request)
		return -ENOENT;
	if (!request->started) {
		cancel_staged(engine, request);
		return 0;
	}
	if (!engine->thread_each && stop(engine, request))
		return 0;
	return request->lane->borrowed ? -EBUSY : -EALREADY;
}

static int posix_aio_forget_fd(uf_engine *base, int fd, int *out, int max)
{
	return uf_lanes_forget(&of(base)->lanes, fd, out, max);
}

/* ---- opening and closing -------------------------------------------------- */

#ifdef __GLIBC__
static pthread_once_t aio_once = PTHREAD_ONCE_INIT;
static unsigned aio_forks; /* uf_forks when this process image first used AIO */

static void init_aio(void)
{
	struct aioinit init = { .aio_threads = WORKERS, .aio_num = CAPACITY, .aio_idle_time = 1 };

	aio_forks = uf_forks;
	aio_init(&init);
}

static int aio_serves(void)
{
	pthread_once(&aio_once, init_aio);
	return aio_forks == uf_forks;
}
#else
static int aio_serves(void)
{
	return 0;
}
#endif

static int posix_aio_open(uf_engine *base, unsigned entries, unsigned sqpoll_ms, const char **step)
{
	struct posix_aio_engine *engine = of(base);

	(void)entries;
	(void)sqpoll_ms;
	base->capacity = CAPACITY;
	base->worker_share = CAPACITY; /* ASYNC means nothing here */
	base->opcodes = 1u << UF_READ | 1u << UF_WRITE | 1u << UF_FSYNC | 1u << UF_FDATASYNC;
	engine->thread_each = !aio_serves();
	engine->staged_end = &engine->staged;
	engine->ended_end = &engine->ended;
	for (unsigned i = 0; i < CAPACITY; i++) {
		engine->requests[i].engine = engine;
		engine->requests[i].next = engine->free;
		engine->free = &engine->requests[i];
	}
	pthread_mutex_init(&engine->lock, NULL);
	pthread_cond_init(&engine->work, NULL);
	return engine->thread_each ? 0 : uf_notifier_start(engine, step);
}

static void posix_aio_describe(const uf_engine *base, uf_info *info)
{
	(void)base;
	info->entries = CAPACITY;
	info->features = 0;
	info->setup_flags = 0;
}

static void posix_aio_destroy(uf_engine *base, int forked)
{
	struct posix_aio_engine *engine = of(base);
	int disarmed;

	if (forked) { /* neither thread nor lock came along */
		uf_lanes_close_all(&engine->lanes);
		if (!engine->thread_each)
			close(engine->wake_fd);
		uf_free(engine);
		return;
	}
	pthread_mutex_lock(&engine->lock);
	engine->stop = 1;
	pthread_mutex_unlock(&engine->lock);
	disarmed = engine->thread_each || uf_notifier_stop(engine);
	/* glibc's workers still hold what runs: it stays, lanes and all. */
	if (any_live(engine) || !disarmed)
		return;
	uf_lanes_close_all(&engine->lanes);
	pthread_cond_destroy(&engine->work);
	pthread_mutex_destroy(&engine->lock);
	uf_free(engine);
}

const struct uf_engine_ops uf_posix_aio_ops = {
	.open = posix_aio_open,
	.describe = posix_aio_describe,
	.submit = posix_aio_submit,
	.flush = posix_aio_flush,
	.staged = posix_aio_staged,
	.fail_staged = posix_aio_fail_staged,
	.reap = posix_aio_reap,
	.cancel = posix_aio_cancel,
	.forget_fd = posix_aio_forget_fd,
	.destroy = posix_aio_destroy,
	.size = sizeof(struct posix_aio_engine),
};
