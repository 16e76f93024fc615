/* <linux/io_uring.h>, and what older copies of it lack. The values are kernel
 * ABI: a kernel that does not know one answers EINVAL, which setup survives. */
#ifndef UF_URING_ABI_H
#define UF_URING_ABI_H

#include <linux/io_uring.h>
#include <sys/syscall.h>

#ifndef __NR_io_uring_setup
#define __NR_io_uring_setup 425
#define __NR_io_uring_enter 426
#define __NR_io_uring_register 427
#endif

/* Linux 5.18, 5.19 */
#ifndef IORING_SETUP_SUBMIT_ALL
#define IORING_SETUP_SUBMIT_ALL (1U << 7)
#endif
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#define IORING_SETUP_TASKRUN_FLAG (1U << 9)
#endif
#ifndef IORING_FEAT_SQPOLL_NONFIXED
#define IORING_FEAT_SQPOLL_NONFIXED (1U << 7)
#endif
#ifndef IORING_ENTER_SQ_WAIT
#define IORING_ENTER_SQ_WAIT (1U << 2)
#endif
#ifndef IORING_SQ_TASKRUN
#define IORING_SQ_TASKRUN (1U << 2)
#endif
#ifndef IORING_SQ_CQ_OVERFLOW
#define IORING_SQ_CQ_OVERFLOW (1U << 1)
#endif
#ifndef IORING_CQ_EVENTFD_DISABLED
#define IORING_CQ_EVENTFD_DISABLED (1U << 0)
#endif

/* Enumerators, which the preprocessor cannot see: Linux 5.15 (the first), 5.11 (rename and
 * unlink), 5.15 and 6.9 (ftruncate). */
#define UF_REGISTER_IOWQ_MAX_WORKERS 19
#define UF_OP_RENAMEAT 35
#define UF_OP_UNLINKAT 36
#define UF_OP_MKDIRAT 37
#define UF_OP_SYMLINKAT 38
#define UF_OP_LINKAT 39
#define UF_OP_FTRUNCATE 55

#endif
