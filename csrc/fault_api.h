/*
 * Faults on purpose, for tests. What is declared here exists with -DUF_FAULTS alone; the
 * tests' build reads it as ffi.cdef() reads engine_api.h, so it has no preprocessor line.
 *
 * Each point counts how often it is passed. An armed one strikes from its nth pass on, so
 * many times; what that means, and what the value is:
 *
 *  MEMORY      calloc() gives NULL
 *  SETUP       io_uring_setup() answers the value, a negative errno
 *  REGISTER    io_uring_register() does
 *  MMAP        mmap() or madvise() of the ring fails
 *  EVENTFD     eventfd() answers the value
 *  DUP         the duplicate of a descriptor (a lane) is refused with the value
 *  THREAD      pthread_create() is
 *  AIO         aio_read(), aio_write() or aio_fsync() is
 *  ENTER       io_uring_enter() answers the value without having done anything, or 0
 *              if that is above 0
 *  PATIENCE    a flush that was refused counts as if it had been so for long
 *  NOWAIT      a read from the page cache answers the value, or if that is above 0 gives
 *              so many bytes at most
 *  SHORTEN     a read or write moves so many bytes at most
 *  FAIL        a read or write moves nothing, and completes with the value
 *  SPOIL       an operation that was performed completes with the value
 *  DELAY       its completion is held back for so many reaps
 *  REORDER     it comes behind one that came later, but at the latest after so many reaps
 *  DOUBLE      it comes once more, after so many reaps
 *
 * What is held back is still in flight, and the eventfd stays readable. SHORTEN and FAIL
 * cut the request and not only the result, so that file, stream and memory are as the
 * result says.
 */
enum uf_fault_point {
	UF_FAULT_MEMORY,
	UF_FAULT_SETUP,
	UF_FAULT_REGISTER,
	UF_FAULT_MMAP,
	UF_FAULT_EVENTFD,
	UF_FAULT_DUP,
	UF_FAULT_THREAD,
	UF_FAULT_AIO,
	UF_FAULT_ENTER,
	UF_FAULT_PATIENCE,
	UF_FAULT_NOWAIT,
	UF_FAULT_SHORTEN,
	UF_FAULT_FAIL,
	UF_FAULT_SPOIL,
	UF_FAULT_DELAY,
	UF_FAULT_REORDER,
	UF_FAULT_DOUBLE,
	UF_FAULT_POINTS /* how many there are */
};

/* Count anew; strike at the passes nth (the next one is 1) to nth + times - 1. */
void uf_fault_arm(int point, int64_t nth, int64_t value, int64_t times);
void uf_fault_disarm(void);

/* Passes of the point since it was armed, and how many of them were struck. */
int64_t uf_fault_passes(int point);
int64_t uf_fault_struck(int point);

/* Blocks of memory that the engines hold. */
int64_t uf_fault_blocks(void);
