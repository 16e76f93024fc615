/* Faults on purpose: counting, and what becomes of completions. Empty but for tests. */
#ifdef UF_FAULTS

#include "engine.h"

#include <unistd.h>

/* Any thread may pass a point (the notifier of POSIX AIO does), one thread arms it. */
static struct {
	int64_t nth, value, times;
	int64_t passes, struck;
} points[UF_FAULT_POINTS];

static int64_t blocks;

void uf_fault_arm(int point, int64_t nth, int64_t value, int64_t times)
{
	__atomic_store_n(&points[point].nth, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&points[point].passes, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&points[point].struck, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&points[point].value, value, __ATOMIC_SEQ_CST);
	__atomic_store_n(&points[point].times, times, __ATOMIC_SEQ_CST);
	__atomic_store_n(&points[point].nth, nth, __ATOMIC_SEQ_CST);
}

void uf_fault_disarm(void)
{
	for (int i = 0; i < UF_FAULT_POINTS; i++)
		__atomic_store_n(&points[i].nth, 0, __ATOMIC_SEQ_CST);
}

int64_t uf_fault_passes(int point)
{
	return __atomic_load_n(&points[point].passes, __ATOMIC_SEQ_CST);
}

int64_t uf_fault_struck(int point)
{
	return __atomic_load_n(&points[point].struck, __ATOMIC_SEQ_CST);
}

int64_t uf_fault(int point)
{
	int64_t pass = __atomic_add_fetch(&points[point].passes, 1, __ATOMIC_SEQ_CST);
	int64_t nth = __atomic_load_n(&points[point].nth, __ATOMIC_SEQ_CST);

	if (!nth || pass < nth ||
	    pass - nth >= __atomic_load_n(&points[point].times, __ATOMIC_SEQ_CST))
		return 0;
	__atomic_add_fetch(&points[point].struck, 1, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&points[point].value, __ATOMIC_SEQ_CST);
}

/* ---- memory ----------------------------------------------------------------- */

void *uf_calloc(size_t n, size_t size)
{
	void *block = uf_fault(UF_FAULT_MEMORY) ? NULL : calloc(n, size);

	if (block)
		__atomic_add_fetch(&blocks, 1, __ATOMIC_SEQ_CST);
	return block;
}

void uf_free(void *block)
{
	if (block)
		__atomic_sub_fetch(&blocks, 1, __ATOMIC_SEQ_CST);
	free(block);
}

int64_t uf_fault_blocks(void)
{
	return __atomic_load_n(&blocks, __ATOMIC_SEQ_CST);
}

/* ---- operations --------------------------------------------------------------- */

int64_t uf_fault_offered(struct uf_op *op)
{
	int64_t most, error;

	if (op->opcode != UF_READ && op->opcode != UF_WRITE)
		return 0;
	most = uf_fault(UF_FAULT_SHORTEN);
	error = uf_fault(UF_FAULT_FAIL);
	if (most > 0 && (uint64_t)most < op->len)
		op->len = (uint64_t)most;
	if (error)
		op->len = 0;
	return error;
}

void uf_fault_accepted(uf_engine *engine, const struct uf_op *op, int64_t error)
{
	struct uf_faults *faults = &engine->faults;

	if ((error || op->opcode == UF_OPENAT) && faults->n_marked < UF_FAULT_MARKED)
		faults->marked[faults->n_marked++] = (struct uf_marked){
			.token = op->token,
			.error = error,
			.opens = op->opcode == UF_OPENAT,
		};
}

static struct uf_marked unmark(struct uf_faults *faults, int64_t token)
{
	for (int i = 0; i < faults->n_marked; i++) {
		struct uf_marked marked = faults->marked[i];

		if (marked.token != token)
			continue;
		faults->marked[i] = faults->marked[--faults->n_marked];
		return marked;
	}
	return (struct uf_marked){ .token = token };
}

static int hold(struct uf_faults *faults, const uf_completion *completion, int64_t reaps,
		int reorder)
{
	if (reaps <= 0 || faults->n_held == UF_FAULT_HELD)
		return 0;
	faults->held[faults->n_held++] = (struct uf_held){
		.completion = *completion,
		.reaps = reaps,
		.reorder = reorder,
	};
	return 1;
}

/* Whether the completion is held back. */
static int strike(struct uf_faults *faults, uf_completion *completion)
{
	struct uf_marked marked = unmark(faults, completion->token);
	int64_t error = uf_fault(UF_FAULT_SPOIL);

	if (error && marked.opens && completion->result >= 0)
		close((int)completion->result);
	/* What was cancelled, or failed by itself, did so. */
	if (marked.error && completion->result >= 0)
		completion->result = marked.error;
	if (error)
		completion->result = error;
	hold(faults, completion, uf_fault(UF_FAULT_DOUBLE), 0);
	return hold(faults, completion, uf_fault(UF_FAULT_DELAY), 0) ||
	       hold(faults, completion, uf_fault(UF_FAULT_REORDER), 1);
}

int uf_fault_completions(uf_engine *engine, uf_completion *out, int n, int max)
{
	struct uf_faults *faults = &engine->faults;
	int before = faults->n_held;
	int kept = 0, left = 0;

	for (int i = 0; i < n; i++) {
		uf_completion completion = out[i];

		if (!strike(faults, &completion))
			out[kept++] = completion;
	}
	for (int i = 0; i < faults->n_held; i++) {
		struct uf_held *held = &faults->held[i];
		int due = i < before && (--held->reaps <= 0 || (held->reorder && kept));

		if (due && kept < max)
			out[kept++] = held->completion;
		else
			faults->held[left++] = *held;
	}
	faults->n_held = left;
	if (left)
		uf_signal(engine);
	return kept;
}

#endif
