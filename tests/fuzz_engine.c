/* Random sequences of calls on an engine, with faults put in, against the eight sentences of
 * csrc/engine_api.h. tests/sanitize.py compiles and runs it: for libFuzzer, or with a main() of
 * its own (-DSEEDS), which makes its inputs from numbers, for what libFuzzer cannot run under.
 *
 * The file holds a pattern and is only ever written that pattern, so that each read can be
 * checked; what must stay pending reads from an empty pipe.
 */
#include "engine.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_SIZE 16384
#define MOST_OPS 600
#define MOST_PARTS 24
#define PART_SIZE 300
#define UNTOUCHED 0xee
#define LONG_MS 10000

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			abort(); \
		} \
	} while (0)

enum state { FREE, STAGED, FLUSHED, COMPLETE };

struct operation {
	enum state state;
	int opcode;
	int flags;
	int fd;
	int from_pipe;
	int cancelled;
	uint64_t len;
	int64_t offset;
	unsigned char *memory;
	uf_part *parts;
};

static struct {
	const uint8_t *at, *end;
} input;

static struct {
	uf_engine *engine;
	int posix, sqpoll;
	int file, other, pipe[2];
	struct operation ops[MOST_OPS];
	int n_ops, in_flight, in_pipe;
	int shut;
	int next_fd;
	int64_t strays, doubles;
} rig;

static unsigned byte(void)
{
	return input.at < input.end ? *input.at++ : 0;
}

static unsigned below(unsigned n)
{
	return byte() % n;
}

static unsigned char pattern(int64_t offset)
{
	return (unsigned char)(offset * 7 + offset / 251 + 3);
}

/* ---- what came of an operation ------------------------------------------------ */

static void check_read(const unsigned char *memory, uint64_t len, int64_t offset, int64_t result)
{
	CHECK(result <= (int64_t)len);
	for (int64_t i = 0; i < result; i++)
		CHECK(memory[i] == pattern(offset + i));
	for (uint64_t i = result < 0 ? 0 : (uint64_t)result; result >= 0 && i < len; i++)
		CHECK(memory[i] == UNTOUCHED);
}

static void check_parts(const struct operation *op, int64_t result)
{
	CHECK(result == 0);
	for (uint64_t i = 0; i < op->len; i++) {
		const uf_part *part = &op->parts[i];

		CHECK(part->result > -4096 && part->result <= (int64_t)part->len);
		if (op->opcode == UF_READ && !op->from_pipe)
			check_read(part->addr, part->len, part->offset, part->result);
	}
}

static void check_result(const struct operation *op, int64_t result)
{
	CHECK(result > -4096);
	switch (op->opcode) {
	case UF_READ:
		if (op->from_pipe)
			CHECK(result <= (int64_t)op->len);
		else
			check_read(op->memory, op->len, op->offset, result);
		break;
	case UF_WRITE:
		CHECK(result <= (int64_t)op->len);
		break;
	case UF_OPENAT:
		CHECK(result != 0);
		if (result > 0)
			CHECK(!close((int)result));
		break;
	case UF_CLOSE:
		if (!result)
			CHECK(fcntl(op->fd, F_GETFD) < 0);
		else
			close(op->fd); /* cancelled, or closed and made to fail */
		break;
	default:
		CHECK(result <= 0);
	}
}

/* Whether it is a batch of which no part could be staged. */
static int is_rejected(const struct operation *op)
{
	for (uint64_t i = 0; op->parts && i < op->len; i++)
		if (op->parts[i].result >= 0)
			return 0;
	return op->parts != NULL;
}

static void came(const uf_completion *completion)
{
	struct operation *op;

	if (completion->token < 0 || completion->token >= rig.n_ops ||
	    rig.ops[completion->token].state == COMPLETE ||
	    rig.ops[completion->token].state == FREE) {
		rig.strays++; /* 2: only if the hook has made it */
		CHECK(rig.strays <= rig.doubles + uf_fault_struck(UF_FAULT_DOUBLE));
		return;
	}
	op = &rig.ops[completion->token];
	CHECK(op->state == FLUSHED || is_rejected(op)); /* 4 */
	if (op->parts)
		check_parts(op, completion->result);
	else
		check_result(op, completion->result);
	op->state = COMPLETE;
	rig.in_flight--;
	rig.in_pipe -= op->from_pipe ? (op->parts ? (int)op->len : 1) : 0;
	free(op->parts);
	free(op->memory);
	op->parts = NULL;
	op->memory = NULL;
}

/* Not only flush does so: reap and cancel may, where there is no room otherwise. */
static void flushed(void)
{
	for (int i = 0; i < rig.n_ops; i++)
		if (rig.ops[i].state == STAGED)
			rig.ops[i].state = FLUSHED;
}

static int reap(int max, int drain)
{
	uf_completion out[64];
	int n = uf_reap(rig.engine, out, max, drain);

	CHECK(n >= 0 && n <= max);
	for (int i = 0; i < n; i++)
		came(&out[i]);
	flushed();
	return n;
}

static int flush(void)
{
	int ret = uf_flush(rig.engine);

	CHECK(ret >= 0 || ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM || ret == -EINTR);
	flushed();
	return ret;
}

/* ---- submitting ----------------------------------------------------------------- */

static void fill(struct operation *op, unsigned char *memory, uint64_t len, int64_t offset)
{
	for (uint64_t i = 0; i < len; i++)
		memory[i] = op->opcode == UF_WRITE ? pattern(offset + (int64_t)i) : UNTOUCHED;
}

static void *prepare_parts(struct operation *op)
{
	op->len = 1 + below(MOST_PARTS);
	op->parts = calloc(op->len, sizeof(*op->parts));
	op->memory = malloc(op->len * PART_SIZE);
	for (uint64_t i = 0; i < op->len; i++) {
		uf_part *part = &op->parts[i];

		part->addr = op->memory + i * PART_SIZE;
		part->len = 1 + below(PART_SIZE);
		part->offset = op->from_pipe ? 0 : below(64) * 200;
		fill(op, part->addr, part->len, part->offset);
	}
	return op->parts;
}

static void *prepare(struct operation *op)
{
	switch (op->opcode) {
	case UF_READ:
	case UF_WRITE:
		if (op->flags & UF_BATCH)
			return prepare_parts(op);
		op->len = below(PART_SIZE);
		op->offset = op->from_pipe ? 0 : below(64) * 200;
		op->memory = malloc(op->len + 1);
		fill(op, op->memory, op->len, op->offset);
		return op->memory;
	case UF_OPENAT:
		op->offset = O_RDONLY | O_CLOEXEC;
		op->memory = (unsigned char *)strdup(below(2) ? "/dev/null" : "/no such file");
		return op->memory;
	case UF_CLOSE:
		op->fd = fcntl(rig.other, F_DUPFD_CLOEXEC, rig.next_fd++);
		CHECK(op->fd >= 0);
		return NULL;
	case UF_STATX:
		op->memory = malloc(256);
		return op->memory;
	case UF_FTRUNCATE:
		op->fd = rig.other;
		op->offset = below(200) * 100;
		return NULL;
	case UF_FALLOCATE:
		op->fd = rig.other;
		op->offset = below(200) * 100;
		op->len = 1 + below(100);
		return NULL;
	case UF_FADVISE:
		op->offset = below(200) * 100;
		op->len = (uint64_t)below(6) << 32 | below(1000); /* POSIX_FADV_* */
		return NULL;
	default:
		return NULL;
	}
}

static void submit(void)
{
	struct operation *op = &rig.ops[rig.n_ops];
	unsigned choice = byte();
	void *addr;
	int ret;

	if (rig.n_ops == MOST_OPS)
		return;
	memset(op, 0, sizeof(*op));
	op->flags = (choice & 2 ? UF_BATCH : 0) | (choice & 4 ? UF_ASYNC : 0);
	op->opcode = (choice >> 3) % UF_OPCODES;
	op->from_pipe = op->opcode == UF_READ && choice & 1;
	if (op->opcode != UF_READ && op->opcode != UF_WRITE)
		op->flags &= ~UF_BATCH;
	op->fd = op->opcode == UF_OPENAT ? AT_FDCWD : op->from_pipe ? rig.pipe[0] : rig.file;
	addr = prepare(op);
	/* POSIX AIO cannot stop reads of a pipe: few of them, or they take all its workers. */
	if (op->from_pipe && rig.in_pipe > 32)
		ret = -EAGAIN;
	else
		ret = uf_submit(rig.engine, op->opcode | op->flags, op->fd, addr,
				op->opcode == UF_OPENAT ? 0 : op->len, op->parts ? 0 : op->offset,
				rig.n_ops);
	if (rig.shut)
		CHECK(ret == -ESHUTDOWN || ret == -EAGAIN);
	if (ret) { /* 1 */
		CHECK(ret < 0);
		if (op->opcode == UF_CLOSE)
			CHECK(!close(op->fd));
		free(op->parts);
		free(op->memory);
		op->parts = NULL;
		op->memory = NULL;
		return;
	}
	op->state = STAGED;
	rig.n_ops++;
	rig.in_flight++;
	rig.in_pipe += op->from_pipe ? (op->parts ? (int)op->len : 1) : 0;
}

static void submit_nonsense(void)
{
	static unsigned char memory[8];

	CHECK(uf_submit(rig.engine, 200, rig.file, memory, 8, 0, 0) < 0);
	CHECK(uf_submit(rig.engine, UF_READ, rig.file, memory, 8, -1, 0) < 0);
	CHECK(uf_submit(rig.engine, UF_READ, rig.file, memory, 8, 0, -1) < 0);
	CHECK(uf_submit(rig.engine, UF_READ | UF_BATCH, rig.file, memory, 0, 0, 0) < 0);
	CHECK(uf_submit(NULL, UF_READ, rig.file, memory, 8, 0, 0) == -ESHUTDOWN);
}

static void cancel(void)
{
	unsigned which = byte() | byte() << 8;
	int before = rig.in_flight;
	int ret;

	if (!rig.n_ops)
		return;
	which %= (unsigned)rig.n_ops;
	/* The contract asks for a token that is in flight; one that was is harmless. */
	ret = uf_cancel(rig.engine, which);
	CHECK(ret == 0 || ret == -EALREADY || ret == -EBUSY || ret == -ENOENT || ret == -EAGAIN);
	CHECK(rig.in_flight == before); /* 6 */
	flushed();
}

/* ---- faults --------------------------------------------------------------------- */

static void arm(void)
{
	static const struct {
		int point;
		int64_t value;
		int always; /* may strike for good: no progress depends on it */
	} faults[] = {
		/* clang-format off */
		{ UF_FAULT_MEMORY, 1, 1 },
		{ UF_FAULT_SETUP, -EPERM, 1 },
		{ UF_FAULT_SETUP, -ENOMEM, 1 },
		{ UF_FAULT_REGISTER, -EPERM, 1 },
		{ UF_FAULT_MMAP, 1, 1 },
		{ UF_FAULT_EVENTFD, -EMFILE, 1 },
		{ UF_FAULT_DUP, -EMFILE, 1 },
		{ UF_FAULT_DUP, -EBADF, 1 },
		{ UF_FAULT_THREAD, -EAGAIN, 1 },
		{ UF_FAULT_AIO, -EAGAIN, 0 },
		{ UF_FAULT_AIO, -ENOSYS, 1 },
		{ UF_FAULT_ENTER, -EINTR, 0 },
		{ UF_FAULT_ENTER, -EAGAIN, 0 },
		{ UF_FAULT_ENTER, -EBUSY, 0 },
		{ UF_FAULT_ENTER, 1, 0 },
		{ UF_FAULT_ENTER, -EPERM, 1 },
		{ UF_FAULT_SHORTEN, 1, 1 },
		{ UF_FAULT_SHORTEN, 100, 1 },
		{ UF_FAULT_FAIL, -EIO, 1 },
		{ UF_FAULT_FAIL, -EINTR, 1 },
		{ UF_FAULT_DELAY, 2, 1 },
		{ UF_FAULT_REORDER, 4, 1 },
		{ UF_FAULT_DOUBLE, 1, 1 },
		{ UF_FAULT_DOUBLE, 5, 1 },
		/* clang-format on */
	};
	unsigned which = below(sizeof(faults) / sizeof(*faults));
	unsigned nth = 1 + below(8), times = 1 + below(4);

	/* What was published to the thread of SQPOLL stays in flight, whatever is answered. */
	if (rig.sqpoll && faults[which].point == UF_FAULT_ENTER)
		return;
	if (faults[which].point == UF_FAULT_DOUBLE)
		rig.doubles += uf_fault_struck(UF_FAULT_DOUBLE);
	uf_fault_arm(faults[which].point, nth, faults[which].value,
		     times == 4 && faults[which].always ? 1 << 20 : times);
}

/* ---- begin and end -------------------------------------------------------------- */

static int open_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int n = 0;

	CHECK(directory);
	while (readdir(directory))
		n++;
	closedir(directory);
	return n;
}

static int open_engine(unsigned choice)
{
	const char *step;
	int kind = choice & 1 ? UF_POSIX_AIO : UF_IO_URING;
	unsigned sqpoll_ms = choice % 32 == 2;
	int ret = uf_open(kind, 1 + (choice >> 2), sqpoll_ms, &rig.engine, &step);
	uf_info info;

	if (ret) {
		CHECK(ret < 0 && step);
		return ret;
	}
	uf_describe(rig.engine, &info);
	CHECK(info.entries && info.capacity && info.opcodes);
	rig.posix = kind == UF_POSIX_AIO;
	rig.sqpoll = sqpoll_ms;
	return 0;
}

/* 2, 5: with data for all who wait for some, everything completes, and nobody has to look
 * who was not woken. */
static void drain(void)
{
	static const unsigned char data[PART_SIZE];
	int ready;

	uf_fault_disarm();
	for (int i = 0; i < rig.in_pipe; i++)
		CHECK(write(rig.pipe[1], data, sizeof(data)) == (ssize_t)sizeof(data));
	while (rig.in_flight) {
		ready = flush();
		if (ready <= 0)
			CHECK(uf_wait(rig.engine, LONG_MS) == 1);
		reap(64, ready <= 0);
	}
	for (int i = 0; i < 6; i++)
		reap(64, 1); /* doubles that are held back */
}

static void end(void)
{
	int fds[64];
	int n = 0;

	if (rig.shut)
		CHECK(uf_submit(rig.engine, UF_READ, rig.file, fds, 4, 0, 1) == -ESHUTDOWN);
	if (byte() & 1)
		n = uf_forget_fd(rig.engine, rig.file, fds, 64);
	for (int i = 0; i < n; i++)
		CHECK(!close(fds[i]));
	uf_destroy(rig.engine);
}

static void run(void)
{
	unsigned choice = byte();

	while (below(3) == 2)
		arm();
	if (open_engine(choice)) {
		CHECK(uf_fault_blocks() == 0);
		uf_fault_disarm();
		if (open_engine(choice))
			return;
	}
	while (input.at < input.end) {
		switch (below(16)) {
		default:
			submit();
			break;
		case 8:
		case 9:
			flush();
			break;
		case 10:
		case 11:
			reap(1 + (int)below(64), (int)below(2));
			break;
		case 12:
			cancel();
			break;
		case 13:
			arm();
			break;
		case 14:
			if (below(8) == 1) {
				CHECK(uf_shutdown(rig.engine) == 0);
				rig.shut = 1;
			}
			break;
		case 15:
			submit_nonsense();
			CHECK(uf_wait(rig.engine, 0) >= 0);
			break;
		}
	}
	drain();
	end();
}

static void make_file(void)
{
	unsigned char content[FILE_SIZE];

	for (int i = 0; i < FILE_SIZE; i++)
		content[i] = pattern(i);
	rig.file = memfd_create("file", MFD_CLOEXEC);
	rig.other = memfd_create("other", MFD_CLOEXEC);
	CHECK(rig.file >= 0 && rig.other >= 0);
	CHECK(pwrite(rig.file, content, FILE_SIZE, 0) == FILE_SIZE);
	CHECK(!pipe2(rig.pipe, O_CLOEXEC));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fds;

	memset(&rig, 0, sizeof(rig));
	input.at = data;
	input.end = data + size;
	make_file();
	rig.next_fd = 300;
	fds = open_fds();
	uf_fault_arm(UF_FAULT_DOUBLE, 0, 0, 0);
	uf_fault_disarm();
	run();
	uf_fault_disarm();
	CHECK(uf_fault_blocks() == 0);
	CHECK(open_fds() == fds);
	close(rig.file);
	close(rig.other);
	close(rig.pipe[0]);
	close(rig.pipe[1]);
	return 0;
}

#ifdef SEEDS

/* fuzz_engine FIRST COUNT: the inputs that these numbers make. */
int main(int argc, char **argv)
{
	unsigned first = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 100;
	unsigned char data[1500];

	for (unsigned seed = first; seed < first + count; seed++) {
		uint64_t x = seed * 2654435761u + 88172645463325252u;
		size_t size;

		for (size_t i = 0; i < sizeof(data); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			data[i] = (unsigned char)(x >> 24);
		}
		size = 50 + (x >> 8) % (sizeof(data) - 50);
		fprintf(stderr, "\rseed %u", seed);
		LLVMFuzzerTestOneInput(data, size);
	}
	fprintf(stderr, "\r%u inputs\n", count);
	return 0;
}

#endif
