/* Faults in the life of an operation. A part of engine.h; without -DUF_FAULTS nothing. */
#ifndef UF_FAULT_OPS_H
#define UF_FAULT_OPS_H

#include "fault.h"

#ifdef UF_FAULTS

#define UF_FAULT_HELD 64
#define UF_FAULT_MARKED 256

struct uf_op;

struct uf_held {
	uf_completion completion;
	int64_t reaps; /* after so many it comes */
	int reorder;   /* or behind the next that comes */
};

/* An operation in flight that is to fail, or that opens a file: nobody gets to see the
 * descriptor of an open that is made to fail. */
struct uf_marked {
	int64_t token;
	int64_t error;
	int opens;
};

/* A part of each engine. */
struct uf_faults {
	struct uf_held held[UF_FAULT_HELD];
	int n_held;
	struct uf_marked marked[UF_FAULT_MARKED];
	int n_marked;
};

/* An operation is about to be submitted: the error that it is to end with, or 0. */
int64_t uf_fault_offered(struct uf_op *op);
/* It was accepted. */
void uf_fault_accepted(uf_engine *engine, const struct uf_op *op, int64_t error);

/* What becomes of n completions that the engine has just given out: how many there are then. */
int uf_fault_completions(uf_engine *engine, uf_completion *out, int n, int max);

#else

#define uf_fault_offered(op) 0
#define uf_fault_accepted(engine, op, error) ((void)(error))
#define uf_fault_completions(engine, out, n, max) (n)

#endif

#endif
