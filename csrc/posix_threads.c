/* A thread for each request, for forked children: glibc's AIO counts on worker threads
 * that a fork does not copy. And where the C library is not glibc. */
#include "posix_aio.h"

#include <unistd.h>

static int64_t perform(const struct request *request)
{
	const struct aiocb *cb = &request->cb;
	void *buf = (void *)cb->aio_buf;
	ssize_t ret;

	switch (request->opcode) {
	case UF_READ:
		ret = pread(cb->aio_fildes, buf, cb->aio_nbytes, cb->aio_offset);
		if (ret < 0 && errno == ESPIPE)
			ret = read(cb->aio_fildes, buf, cb->aio_nbytes);
		break;
	case UF_WRITE:
		ret = pwrite(cb->aio_fildes, buf, cb->aio_nbytes, cb->aio_offset);
		if (ret < 0 && errno == ESPIPE)
			ret = write(cb->aio_fildes, buf, cb->aio_nbytes);
		break;
	case UF_FDATASYNC:
		ret = fdatasync(cb->aio_fildes);
		break;
	default:
		ret = fsync(cb->aio_fildes);
		break;
	}
	return ret < 0 ? -errno : ret;
}

static void *perform_and_end(void *arg)
{
	struct request *request = arg;
	struct posix_aio_engine *engine = request->engine;
	int64_t result = perform(request);

	pthread_mutex_lock(&engine->lock);
	uf_posix_end(engine, request, result);
	pthread_mutex_unlock(&engine->lock);
	return NULL;
}

int uf_start_in_thread(struct request *request)
{
	pthread_t thread;
	int ret = uf_posix_spawn(&thread, perform_and_end, request);

	if (!ret)
		pthread_detach(thread);
	return ret;
}
