/* Many reads or writes of one file, submitted as one operation. A part of engine.h. */
#ifndef UF_BATCH_H
#define UF_BATCH_H

#define UF_BATCHES 128

struct uf_op;

/* Its parts go to the engine as operations of their own; their tokens say which
 * batch and which part. The batch completes when all of them have. */
struct uf_batch {
	uf_part *parts; /* NULL: the slot is free */
	unsigned n;
	unsigned staged;     /* parts that were offered to the engine */
	unsigned cancelled;  /* parts whose cancellation was asked for */
	unsigned left;	     /* parts without a result */
	unsigned generation; /* of the slot's uses */
	int opcode;
	unsigned flags;
	int fd;
	int64_t token;
};

struct uf_batches {
	struct uf_batch slots[UF_BATCHES];
	unsigned n_waiting;  /* how many have parts that are not staged yet */
	unsigned n_done;     /* how many have all results */
	unsigned generation; /* how many batches there have been */
};

int uf_batch_submit(uf_engine *engine, const struct uf_op *op);

/* Stage what there is room for of the waiting batches: how many parts were staged. */
unsigned uf_batch_stage(uf_engine *engine);

/* Replace completions of parts by those of the batches that they complete: how
 * many completions there are then. One that no part waits for stays as it is. */
int uf_batch_settle(uf_engine *engine, uf_completion *out, int n, int max);

/* As uf_cancel(); *found says whether the token is that of a batch. */
int uf_batch_cancel(uf_engine *engine, int64_t token, int *found);

#endif
