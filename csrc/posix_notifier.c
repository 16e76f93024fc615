/* The thread that waits for AIO requests: it sleeps in aio_suspend(), hands over what
 * has ended, and is woken for fresh requests by a read of its own, on an eventfd,
 * which is one of those that it waits for. */
#include "posix_aio.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long a request can stay unnoticed while all workers hang and none is
 * left for the read that wakes the notifier. */
#define STARVED_NS 100000000L

/* How often that long a busy machine may take to end the wake-up read when the engine is
 * destroyed: a worker has it then, and needs nothing but a processor. */
#define STOP_TRIES 100

static int64_t result_of(struct aiocb *cb)
{
	int error = aio_error(cb);
	ssize_t ret = aio_return(cb);

	return error ? -error : ret;
}

static void arm_wake(struct posix_aio_engine *engine)
{
	if (engine->wake_armed)
		return;
	memset(&engine->wake, 0, sizeof(engine->wake));
	engine->wake.aio_fildes = engine->wake_fd;
	engine->wake.aio_buf = &engine->wake_count;
	engine->wake.aio_nbytes = sizeof(engine->wake_count);
	engine->wake.aio_sigevent.sigev_notify = SIGEV_NONE;
	/* On failure the time limit of aio_suspend stands in for it. */
	engine->wake_armed = !uf_fault(UF_FAULT_AIO) && !aio_read(&engine->wake);
}

/* End the wake-up read, if there is one: it would keep a worker from others for as long as
 * it waits. Whether it has ended. */
static int disarm_wake(struct posix_aio_engine *engine)
{
	const struct aiocb *list[1] = { &engine->wake };
	const struct timespec starved = { .tv_nsec = STARVED_NS };
	uint64_t one = 1;

	if (!engine->wake_armed)
		return 1;
	if (aio_cancel(engine->wake_fd, &engine->wake) == AIO_NOTCANCELED) {
		ssize_t ret = write(engine->wake_fd, &one, sizeof(one));

		(void)ret;
		aio_suspend(list, 1, &starved);
	}
	if (aio_error(&engine->wake) == EINPROGRESS)
		return 0;
	aio_return(&engine->wake);
	engine->wake_armed = 0;
	return 1;
}

static unsigned take_fresh(struct posix_aio_engine *engine, struct request **watched, unsigned n)
{
	while (engine->fresh) {
		watched[n++] = engine->fresh;
		engine->fresh = engine->fresh->next;
	}
	return n;
}

/* Idle for a moment with the wake-up read in place, then without. Holds the lock. */
static void wait_for_work(struct posix_aio_engine *engine)
{
	struct timespec until;

	if (!engine->wake_armed) {
		pthread_cond_wait(&engine->work, &engine->lock);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += STARVED_NS;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	if (pthread_cond_timedwait(&engine->work, &engine->lock, &until) == ETIMEDOUT)
		disarm_wake(engine);
}

/* What to watch next; 0 when the engine stops. */
static unsigned next_watched(struct posix_aio_engine *engine, struct request **watched, unsigned n)
{
	pthread_mutex_lock(&engine->lock);
	n = take_fresh(engine, watched, n);
	while (!n && !engine->stop) {
		engine->state = IDLE;
		wait_for_work(engine);
		n = take_fresh(engine, watched, n);
	}
	engine->state = SUSPENDED;
	if (engine->stop)
		n = 0;
	pthread_mutex_unlock(&engine->lock);
	return n;
}

static void suspend(struct posix_aio_engine *engine, struct request **watched, unsigned n)
{
	const struct timespec starved = { .tv_nsec = STARVED_NS };
	const struct aiocb *list[CAPACITY + 1];

	for (unsigned i = 0; i < n; i++)
		list[i] = &watched[i]->cb;
	if (engine->wake_armed)
		list[n++] = &engine->wake;
	aio_suspend(list, (int)n, &starved);
	if (engine->wake_armed && aio_error(&engine->wake) != EINPROGRESS) {
		aio_return(&engine->wake);
		engine->wake_armed = 0;
	}
}

/* Hand over what has ended; returns how many are still running. */
static unsigned collect(struct posix_aio_engine *engine, struct request **watched, unsigned n)
{
	unsigned kept = 0;

	pthread_mutex_lock(&engine->lock);
	engine->state = RUNNING;
	for (unsigned i = 0; i < n; i++) {
		if (aio_error(&watched[i]->cb) == EINPROGRESS)
			watched[kept++] = watched[i];
		else
			uf_posix_end(engine, watched[i], result_of(&watched[i]->cb));
	}
	pthread_mutex_unlock(&engine->lock);
	return kept;
}

static void *notify(void *arg)
{
	struct posix_aio_engine *engine = arg;
	struct request *watched[CAPACITY];
	unsigned n = 0;

	while ((n = next_watched(engine, watched, n))) {
		arm_wake(engine);
		suspend(engine, watched, n);
		n = collect(engine, watched, n);
	}
	return NULL;
}

void uf_notifier_wake(struct posix_aio_engine *engine)
{
	uint64_t one = 1;

	if (engine->state == IDLE)
		pthread_cond_signal(&engine->work);
	if (engine->state == SUSPENDED) {
		ssize_t ret = write(engine->wake_fd, &one, sizeof(one));

		(void)ret;
		engine->state = WOKEN;
	}
}

int uf_notifier_start(struct posix_aio_engine *engine, const char **step)
{
	int ret;

	*step = "eventfd";
	engine->wake_fd = uf_eventfd_open(0);
	if (engine->wake_fd < 0)
		return engine->wake_fd;
	*step = "pthread_create";
	ret = uf_posix_spawn(&engine->notifier, notify, engine);
	if (ret)
		close(engine->wake_fd);
	return ret;
}

int uf_notifier_stop(struct posix_aio_engine *engine)
{
	int disarmed = 0;

	pthread_mutex_lock(&engine->lock);
	uf_notifier_wake(engine);
	pthread_mutex_unlock(&engine->lock);
	pthread_join(engine->notifier, NULL);
	/* It must not outlive its memory. */
	for (int i = 0; i < STOP_TRIES && !disarmed; i++)
		disarmed = disarm_wake(engine);
	if (disarmed)
		close(engine->wake_fd);
	return disarmed;
}
