/* From an operation to the sqe that asks the kernel for it. */
#ifndef UF_URING_SQE_H
#define UF_URING_SQE_H

#include "uring_abi.h"

struct uf_op;

/* By enum uf_opcode: IORING_OP_*. */
extern const int uf_sqe_opcode[];

/* Fill in an sqe that is all zeros. */
void uf_prepare(struct io_uring_sqe *sqe, const struct uf_op *op);

#endif
