/* POSIX AIO on threads of its own, in place of glibc's: ThreadSanitizer does not know the
 * threads that glibc makes within itself, and crashes in them. With this one it sees all that
 * the notifier shares with others, and that the kernel's part is done by other threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { READ, WRITE, SYNC };

struct job {
	struct aiocb *cb;
	int what;
	struct job *next; /* that no thread has taken yet */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some_end = PTHREAD_COND_INITIALIZER;
static struct job *waiting;

static int take(struct job *job)
{
	struct job **link = &waiting;

	while (*link && *link != job)
		link = &(*link)->next;
	if (!*link)
		return 0;
	*link = job->next;
	return 1;
}

/* Holds the lock. */
static void end(struct aiocb *cb, int error, ssize_t result)
{
	cb->__error_code = error;
	cb->__return_value = result;
	pthread_cond_broadcast(&some_end);
}

static ssize_t perform(const struct aiocb *cb, int what)
{
	void *buf = (void *)cb->aio_buf;
	ssize_t ret;

	switch (what) {
	case READ:
		ret = pread(cb->aio_fildes, buf, cb->aio_nbytes, cb->aio_offset);
		if (ret < 0 && errno == ESPIPE)
			ret = read(cb->aio_fildes, buf, cb->aio_nbytes);
		return ret;
	case WRITE:
		return pwrite(cb->aio_fildes, buf, cb->aio_nbytes, cb->aio_offset);
	default:
		return fsync(cb->aio_fildes);
	}
}

static void *run(void *arg)
{
	struct job *job = arg;
	int mine;

	pthread_mutex_lock(&lock);
	mine = take(job);
	pthread_mutex_unlock(&lock);
	if (mine) {
		ssize_t ret = perform(job->cb, job->what);
		int error = ret < 0 ? errno : 0;

		pthread_mutex_lock(&lock);
		end(job->cb, error, ret);
		pthread_mutex_unlock(&lock);
	}
	free(job);
	return NULL;
}

static int start(struct aiocb *cb, int what)
{
	struct job *job = malloc(sizeof(*job));
	pthread_t thread;

	job->cb = cb;
	job->what = what;
	pthread_mutex_lock(&lock);
	cb->__error_code = EINPROGRESS;
	job->next = waiting;
	waiting = job;
	pthread_mutex_unlock(&lock);
	if (!pthread_create(&thread, NULL, run, job)) {
		pthread_detach(thread);
		return 0;
	}
	pthread_mutex_lock(&lock);
	take(job);
	pthread_mutex_unlock(&lock);
	free(job);
	errno = EAGAIN;
	return -1;
}

int aio_read(struct aiocb *cb)
{
	return start(cb, READ);
}

int aio_write(struct aiocb *cb)
{
	return start(cb, WRITE);
}

int aio_fsync(int how, struct aiocb *cb)
{
	(void)how;
	return start(cb, SYNC);
}

int aio_error(const struct aiocb *cb)
{
	int error;

	pthread_mutex_lock(&lock);
	error = cb->__error_code;
	pthread_mutex_unlock(&lock);
	return error;
}

ssize_t aio_return(struct aiocb *cb)
{
	return cb->__return_value;
}

int aio_cancel(int fd, struct aiocb *cb)
{
	int answer = AIO_NOTCANCELED;
	struct job *job;

	(void)fd;
	pthread_mutex_lock(&lock);
	if (cb->__error_code != EINPROGRESS)
		answer = AIO_ALLDONE;
	for (job = waiting; job && job->cb != cb; job = job->next)
		;
	if (job && answer == AIO_NOTCANCELED) {
		take(job);
		end(cb, ECANCELED, -1);
		answer = AIO_CANCELED;
	}
	pthread_mutex_unlock(&lock);
	return answer;
}

static int any_ended(const struct aiocb *const list[], int n)
{
	for (int i = 0; i < n; i++)
		if (list[i] && list[i]->__error_code != EINPROGRESS)
			return 1;
	return 0;
}

int aio_suspend(const struct aiocb *const list[], int n, const struct timespec *timeout)
{
	struct timespec until;
	int ret = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout->tv_sec;
	until.tv_nsec += timeout->tv_nsec;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	pthread_mutex_lock(&lock);
	while (!any_ended(list, n) && !ret)
		ret = pthread_cond_timedwait(&some_end, &lock, &until);
	pthread_mutex_unlock(&lock);
	return ret ? -1 : 0;
}

void aio_init(const struct aioinit *init)
{
	(void)init;
}
