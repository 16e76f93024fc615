/* What an operation of the engine is to io_uring. */
#include "uring_sqe.h"

#include "engine.h"

#include <fcntl.h>

/* clang-format off */
const int uf_sqe_opcode[UF_OPCODES] = {
	[UF_READ] = IORING_OP_READ,
	[UF_WRITE] = IORING_OP_WRITE,
	[UF_FSYNC] = IORING_OP_FSYNC,
	[UF_FDATASYNC] = IORING_OP_FSYNC,
	[UF_OPENAT] = IORING_OP_OPENAT,
	[UF_CLOSE] = IORING_OP_CLOSE,
	[UF_STATX] = IORING_OP_STATX,
	[UF_FTRUNCATE] = UF_OP_FTRUNCATE,
	[UF_FALLOCATE] = IORING_OP_FALLOCATE,
	[UF_STATX_PATH] = IORING_OP_STATX,
	[UF_UNLINKAT] = UF_OP_UNLINKAT,
	[UF_RENAMEAT] = UF_OP_RENAMEAT,
	[UF_MKDIRAT] = UF_OP_MKDIRAT,
	[UF_LINKAT] = UF_OP_LINKAT,
	[UF_SYMLINKAT] = UF_OP_SYMLINKAT,
	[UF_FADVISE] = IORING_OP_FADVISE,
};
/* clang-format on */

#define BASIC_STATS 0x7ff /* STATX_BASIC_STATS */
#define SIZEOF_STATX 256

void uf_prepare(struct io_uring_sqe *sqe, const struct uf_op *op)
{
	sqe->opcode = (uint8_t)uf_sqe_opcode[op->opcode];
	sqe->flags = op->flags & UF_ASYNC ? IOSQE_ASYNC : 0;
	sqe->fd = op->fd;
	sqe->user_data = (uint64_t)op->token;
	switch (op->opcode) {
	case UF_READ:
	case UF_WRITE:
		sqe->addr = (uintptr_t)op->addr;
		sqe->len = (uint32_t)op->len;
		sqe->off = (uint64_t)op->offset;
		break;
	case UF_FDATASYNC:
		sqe->fsync_flags = IORING_FSYNC_DATASYNC;
		break;
	case UF_OPENAT:
		sqe->addr = (uintptr_t)op->addr;
		sqe->len = (uint32_t)op->len;
		sqe->open_flags = (uint32_t)op->offset;
		break;
	case UF_STATX:
		sqe->addr = (uintptr_t)"";
		sqe->off = (uintptr_t)op->addr;
		sqe->len = BASIC_STATS;
		sqe->statx_flags = AT_EMPTY_PATH;
		break;
	case UF_FTRUNCATE:
		sqe->off = (uint64_t)op->offset;
		break;
	case UF_FALLOCATE: /* mode 0; the length travels in addr */
		sqe->off = (uint64_t)op->offset;
		sqe->addr = op->len;
		break;
	case UF_STATX_PATH:
		sqe->addr = (uintptr_t)op->addr + SIZEOF_STATX;
		sqe->off = (uintptr_t)op->addr;
		sqe->len = BASIC_STATS;
		sqe->statx_flags = (uint32_t)op->offset;
		break;
	case UF_UNLINKAT:
		sqe->addr = (uintptr_t)op->addr;
		sqe->rw_flags = (int)op->offset; /* unlink_flags */
		break;
	case UF_MKDIRAT:
		sqe->addr = (uintptr_t)op->addr;
		sqe->len = (uint32_t)op->len;
		break;
	case UF_RENAMEAT:
	case UF_LINKAT:
		sqe->addr = (uintptr_t)op->addr;
		sqe->off = (uintptr_t)op->addr + op->len; /* addr2 */
		sqe->len = (uint32_t)op->offset;
		sqe->rw_flags = (int)(op->offset >> 32); /* rename_flags, hardlink_flags */
		break;
	case UF_SYMLINKAT:
		sqe->addr = (uintptr_t)op->addr;
		sqe->off = (uintptr_t)op->addr + op->len;
		break;
	case UF_FADVISE:
		sqe->off = (uint64_t)op->offset;
		sqe->len = (uint32_t)op->len;
		sqe->fadvise_advice = (uint32_t)(op->len >> 32);
		break;
	}
}
