/* What the three files of the POSIX AIO engine share. */
#ifndef UF_POSIX_AIO_H
#define UF_POSIX_AIO_H

#include "engine.h"
#include "lanes.h"

#include <aio.h>
#include <pthread.h>

#define CAPACITY 256

struct request {
	struct aiocb cb;
	struct posix_aio_engine *engine;
	struct request *next; /* in one of the lists below */
	struct uf_lanes *lanes;
	struct uf_lane *lane;
	int64_t token;
	int64_t result;
	int opcode;
	int live;
	int unwanted;	  /* its cancellation was asked for */
	uint64_t started; /* in this order; 0: not yet */
};

enum notifier_state { RUNNING, IDLE, SUSPENDED, WOKEN };

struct posix_aio_engine {
	struct uf_engine base;
	int thread_each; /* in a forked child, and with musl */
	struct uf_lanes *lanes;

	/* The loop's thread only. */
	struct request *free;
	struct request *staged;
	struct request **staged_end;
	uint64_t started; /* how many have been */

	/* Under lock. */
	pthread_mutex_t lock;
	pthread_cond_t work;   /* for the idle notifier */
	struct request *fresh; /* started, for the notifier to watch */
	struct request *ended;
	struct request **ended_end;
	unsigned n_ended;
	enum notifier_state state;
	int stop;

	/* The notifier's own. */
	pthread_t notifier;
	int wake_fd;
	int wake_armed;
	uint64_t wake_count;
	struct aiocb wake;

	struct request requests[CAPACITY];
};

/* Hand an ended request over to reap. Callers hold the lock. */
void uf_posix_end(struct posix_aio_engine *engine, struct request *request, int64_t result);

/* A thread that no signal of the process is delivered to: 0 or -errno. */
int uf_posix_spawn(pthread_t *thread, void *(*run)(void *), void *arg);

/* posix_notifier.c */
int uf_notifier_start(struct posix_aio_engine *engine, const char **step);
/* There are fresh requests, or the engine stops. Callers hold the lock. */
void uf_notifier_wake(struct posix_aio_engine *engine);
/* Whether nothing of it is left running. */
int uf_notifier_stop(struct posix_aio_engine *engine);

/* posix_threads.c: perform the request in a thread of its own. 0 or -errno. */
int uf_start_in_thread(struct request *request);

#endif
