/* close(2) where it may wait: over a network for the server, on a disk for what is written back. */
#include "posix_aio.h"

#include <unistd.h>

/* A thread ends its own after close(2). */
unsigned uf_closes;

static void *close_and_end(void *arg)
{
	close((int)(intptr_t)arg);
	__atomic_sub_fetch(&uf_closes, 1, __ATOMIC_RELEASE);
	return NULL;
}

int uf_close_in_thread(int fd)
{
	pthread_t thread;
	int ret;

	__atomic_add_fetch(&uf_closes, 1, __ATOMIC_RELAXED);
	ret = uf_posix_spawn(&thread, close_and_end, (void *)(intptr_t)fd);
	if (ret)
		__atomic_sub_fetch(&uf_closes, 1, __ATOMIC_RELAXED);
	else
		pthread_detach(thread);
	return ret;
}

int uf_closing(void)
{
	return (int)__atomic_load_n(&uf_closes, __ATOMIC_ACQUIRE);
}
