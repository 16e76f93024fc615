/* Whether registered buffers and files make reads faster: io_uring alone, from C.
 *
 *   registered FILE SIZE DEPTH DIRECT ROUNDS SECONDS
 *
 * Eight rings read FILE at random offsets, in turn: with nothing registered, with buffers
 * (IORING_REGISTER_BUFFERS, READ_FIXED), with the file (IOSQE_FIXED_FILE), with both; and
 * each of these into memory of huge pages.
 * Prints for each round and ring: round, name, reads in a second, CPU nanoseconds a read. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

enum { BUFFERS = 1, FILES = 2, HUGE = 4, VARIANTS = 8 };

static const char *const names[VARIANTS] = {
	"plain", "buffers", "files", "both", "huge", "huge+buffers", "huge+files", "huge+both",
};

static const size_t huge_page = 2 << 20;

struct job {
	struct uf_ring ring;
	int variant;
	int fd;
	char *memory;
	unsigned size, depth;
	uint64_t blocks, seed;
};

static void die(const char *what, int error)
{
	fprintf(stderr, "%s: %s\n", what, strerror(error));
	exit(1);
}

static double now(int clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(size_t size, int huge)
{
	char *p = mmap(NULL, size + 2 * huge_page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap", errno);
	madvise(p, size + 2 * huge_page, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	p += -(uintptr_t)p % huge_page;
	memset(p, 1, size);
	return p;
}

static void start(struct job *job, int variant, const char *path, int direct)
{
	unsigned flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
	struct iovec iov;
	struct stat st;
	const char *step;
	int ret;

	job->variant = variant;
	job->seed = 1 + (uint64_t)variant;
	job->fd = open(path, O_RDONLY | (direct ? O_DIRECT : 0));
	if (job->fd < 0 || fstat(job->fd, &st))
		die(path, errno);
	job->blocks = (uint64_t)st.st_size / job->size;
	iov.iov_len = (size_t)job->size * job->depth;
	iov.iov_base = memory(iov.iov_len, variant & HUGE);
	job->memory = iov.iov_base;
	ret = uf_ring_open(&job->ring, 64, 128, flags, 0, &step);
	if (ret)
		die(step, -ret);
	if (variant & BUFFERS)
		ret = uf_ring_register(&job->ring, IORING_REGISTER_BUFFERS, &iov, 1);
	if (!ret && variant & FILES)
		ret = uf_ring_register(&job->ring, IORING_REGISTER_FILES, &job->fd, 1);
	if (ret)
		die("io_uring_register", -ret);
}

static void stage(struct job *job, uint64_t slot)
{
	struct io_uring_sqe *sqe = uf_ring_next_sqe(&job->ring);

	job->seed = job->seed * 6364136223846793005u + 1442695040888963407u;
	sqe->opcode = job->variant & BUFFERS ? IORING_OP_READ_FIXED : IORING_OP_READ;
	sqe->flags = job->variant & FILES ? IOSQE_FIXED_FILE : 0;
	sqe->fd = job->variant & FILES ? 0 : job->fd;
	sqe->addr = (uintptr_t)(job->memory + slot * job->size);
	sqe->len = job->size;
	sqe->off = (job->seed >> 33) % job->blocks * job->size;
	sqe->user_data = slot;
}

/* Reads until all in flight are done and the time is up: how many. */
static uint64_t work(struct job *job, double seconds)
{
	double end = now(CLOCK_MONOTONIC) + seconds;
	struct uf_ring *ring = &job->ring;
	unsigned in_flight = job->depth;
	uint64_t done = 0;

	for (unsigned i = 0; i < job->depth; i++)
		stage(job, i);
	while (in_flight) {
		int more = now(CLOCK_MONOTONIC) < end;

		__atomic_store_n(ring->ksq_tail, ring->sq_tail, __ATOMIC_RELEASE);
		if (syscall(__NR_io_uring_enter, ring->fd, uf_ring_staged(ring), 1,
			    IORING_ENTER_GETEVENTS, NULL, 0) < 0)
			die("io_uring_enter", errno);
		while (uf_ring_ready(ring)) {
			const struct io_uring_cqe *cqe = uf_ring_peek(ring);
			uint64_t slot = cqe->user_data;

			if (cqe->res != (int)job->size)
				die("read", -cqe->res);
			uf_ring_advance(ring);
			done++;
			in_flight--;
			if (more) {
				stage(job, slot);
				in_flight++;
			}
		}
	}
	return done;
}

int main(int argc, char **argv)
{
	struct job jobs[VARIANTS] = { 0 };
	double seconds;

	if (argc != 7)
		die("FILE SIZE DEPTH DIRECT ROUNDS SECONDS", EINVAL);
	seconds = atof(argv[6]);
	for (int v = 0; v < VARIANTS; v++) {
		jobs[v].size = (unsigned)atoi(argv[2]);
		jobs[v].depth = (unsigned)atoi(argv[3]);
		start(&jobs[v], v, argv[1], atoi(argv[4]));
	}
	for (int round = -1; round < atoi(argv[5]); round++)
		for (int v = 0; v < VARIANTS; v++) {
			double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
			uint64_t n = work(&jobs[v], seconds);

			began = now(CLOCK_MONOTONIC) - began;
			cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
			if (round >= 0) /* the first one warms up */
				printf("%d %s %.0f %.0f\n", round, names[v], (double)n / began,
				       1e9 * cpu / (double)n);
		}
	return 0;
}
