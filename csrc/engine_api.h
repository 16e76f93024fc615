/*
 * What Python calls: the engine contract.
 *
 * The C files include this header through engine.h, and ffi.cdef() reads it
 * verbatim, so the API is declared once. That is why there is no include guard
 * and no preprocessor line here.
 *
 * The contract, the same for every engine:
 *
 *  1. submit answers 0, -EAGAIN (full: flush, reap, retry) or -errno (rejected,
 *     and no completion follows).
 *  2. Each accepted operation yields exactly one completion, cancelled or not.
 *  3. From acceptance until that completion is reaped, the buffer and the fd
 *     belong to the engine.
 *  4. submit may only stage; flush makes the kernel see it.
 *  5. The eventfd becomes readable when something can be reaped. A wake-up may
 *     be spurious, never lost; reaping drains it. (What completes within flush
 *     is announced by its return value: no wake-up is spent on it.)
 *  6. cancel is a request and completes nothing by itself.
 *  7. To close: shutdown refuses new work, the caller cancels, reaps until nothing
 *     is in flight, then destroys. What cannot be stopped keeps its buffer for ever.
 *  8. All calls come from the thread and the process that opened the engine; in
 *     a forked child every call but destroy answers -ECHILD. NULL stands for an
 *     engine that was destroyed: -ESHUTDOWN.
 */

enum uf_kind { UF_IO_URING, UF_POSIX_AIO };

/*
 * Operations, and what fd, addr, len and offset mean to them:
 *
 *  READ, WRITE        fd, addr[len] at offset; at most 0x7ffff000 bytes move
 *  FSYNC, FDATASYNC   fd
 *  OPENAT             fd = dirfd, addr = path, len = mode, offset = flags
 *  CLOSE              fd
 *  STATX              fd, addr = struct statx (256 bytes)
 *  FTRUNCATE          fd, offset = length
 *  FALLOCATE          fd, offset, len
 *  FADVISE            fd, offset, len = advice << 32 | length (0: to the end of the file)
 *
 * With fd = dirfd; a relative path begins there, and AT_FDCWD is the working directory:
 *
 *  STATX_PATH         addr = struct statx and behind it the path, offset = AT_* flags
 *  UNLINKAT           addr = path, offset = AT_* flags
 *  MKDIRAT            addr = path, len = mode
 *  RENAMEAT, LINKAT   addr = two paths, len = where in addr the second begins,
 *                     offset = flags << 32 | dirfd of the second
 *  SYMLINKAT          addr = target and path, len = where in addr the path begins
 */
enum uf_opcode {
	UF_READ,
	UF_WRITE,
	UF_FSYNC,
	UF_FDATASYNC,
	UF_OPENAT,
	UF_CLOSE,
	UF_STATX,
	UF_FTRUNCATE,
	UF_FALLOCATE,
	UF_STATX_PATH,
	UF_UNLINKAT,
	UF_RENAMEAT,
	UF_MKDIRAT,
	UF_LINKAT,
	UF_SYMLINKAT,
	UF_FADVISE,
	UF_OPCODES /* how many there are */
};

/* Or'ed into the opcode. ASYNC: hand it to a kernel worker at once, without an
 * attempt on the submitter's thread (IOSQE_ASYNC). BATCH: see uf_part. */
enum uf_submit_flag { UF_ASYNC = 256, UF_BATCH = 512 };

/* One of the reads or writes of a batch. UF_READ or UF_WRITE with UF_BATCH: addr
 * points to len of these, which belong to the engine as buffers do, and offset means
 * nothing. It is one operation with one completion, whose result is 0; each part's
 * own is here by then.
 * A batch takes at most as much room as it leaves. */
typedef struct {
	void *addr;
	uint64_t len;
	int64_t offset;
	int64_t result;
} uf_part;

/* result is what the system call would return: >= 0, or -errno. */
typedef struct {
	int64_t token;
	int64_t result;
} uf_completion;

typedef struct {
	unsigned entries;      /* submission queue */
	unsigned capacity;     /* operations in flight at most */
	unsigned worker_share; /* and of one file those that are UF_ASYNC */
	unsigned features;     /* IORING_FEAT_* of the kernel; 0 for POSIX AIO */
	unsigned setup_flags;  /* IORING_SETUP_* in force; 0 for POSIX AIO */
	unsigned opcodes;      /* bit n: opcode n is served */
} uf_info;

typedef struct uf_engine uf_engine;

/* entries is a wish, rounded and shrunk as the locked-memory limit demands.
 * sqpoll_ms above 0 asks io_uring for a thread of the kernel that takes what is
 * flushed without a system call, and sleeps after so many idle milliseconds
 * (IORING_SETUP_SQPOLL); where the kernel refuses that, the ring does without.
 * -errno when the kernel refuses; *step then names the call that was refused. */
int uf_open(int kind, unsigned entries, unsigned sqpoll_ms, uf_engine **engine, const char **step);
void uf_describe(const uf_engine *engine, uf_info *info);
int uf_eventfd(const uf_engine *engine);

/* token comes back in the completion; it must be >= 0, below 2^62, and unique in
 * flight. */
int uf_submit(uf_engine *engine, int opcode, int fd, void *addr, uint64_t len, int64_t offset,
	      int64_t token);

/* How many completions are waiting to be reaped, or -errno. -EAGAIN, -EBUSY,
 * -ENOMEM, -EINTR: reap and flush again later; what was staged stays staged. When that has
 * been so for a second, and nothing is in flight whose end could change it, what is staged
 * completes with the error (-EAGAIN for -EINTR, which nothing in flight changes). */
int uf_flush(uf_engine *engine);

/* Copy out at most max completions; drain resets the eventfd first. When some
 * are left behind, the eventfd stays readable. Should a completion come twice (a defect
 * of the kernel), its token, or one above 2^62, is none that is in flight: ignore it. */
int uf_reap(uf_engine *engine, uf_completion *out, int max, int drain);

/* 0: asked for, visible to the kernel after the next flush. -EALREADY: it runs,
 * cannot be stopped, and needs the caller's fd no more. -EBUSY: the same, and it
 * does need the fd. -ENOENT: no such operation (POSIX AIO only:
 * io_uring learns that later and says nothing). -EAGAIN: full, ask again. */
int uf_cancel(uf_engine *engine, int64_t token);

/* The fd is about to be closed, and nothing in flight needs its number. Answers how
 * many descriptors of the engine's own, made from it, the caller must close, too:
 * at most max, in out. */
int uf_forget_fd(uf_engine *engine, int fd, int *out, int max);

/* Refuse new operations; cancel, flush and reap go on working. */
int uf_shutdown(uf_engine *engine);

/* Block until the eventfd is readable or timeout_ms has passed: 1, 0, -errno. */
int uf_wait(uf_engine *engine, int timeout_ms);

/* Release everything; safe in a forked child. Operations still in flight keep
 * their buffers: the caller must never free those. */
void uf_destroy(uf_engine *engine);

/* A read that only the page cache may serve: bytes read, -EAGAIN when it would
 * block, -EOPNOTSUPP when the file system cannot tell. preadv2(RWF_NOWAIT),
 * Linux 4.14; on a tmpfs pread(2), up to 256 KiB. Needs no engine. */
int64_t uf_read_nowait(int fd, void *addr, uint64_t len, int64_t offset);

/* The same by way of io_uring: READ with RWF_NOWAIT, submitted at once with all that is
 * staged, and its completion picked out of the queue. By preadv2 where that cannot be:
 * POSIX AIO, SQPOLL, a full queue. *engine may have become NULL meanwhile. */
int64_t uf_read_on_ring(uf_engine *const *engine, int fd, void *addr, uint64_t len, int64_t offset);

/* What can be known of an open file without asking its file system to refresh
 * anything: statx(AT_STATX_DONT_SYNC), Linux 4.11. */
typedef struct {
	uint32_t mode;
	uint32_t dio_align; /* of offsets for O_DIRECT, Linux 6.1; 0: unknown */
	int64_t size;
	uint64_t mount;	 /* never reused (STATX_MNT_ID_UNIQUE, Linux 6.8); 0: unknown */
	uint64_t device; /* a block device's; 0: none, as with tmpfs, NFS and FUSE */
} uf_identity;

int uf_identify(int fd, uf_identity *identity);

/* Whether the file system of fd answers from this machine's memory and disks, so
 * that fstat(2) and close(2) wait for nobody else. Itself it may wait. */
int uf_is_local(int fd);

/* Reads of sizes[i] bytes at offsets[i], one behind the other into memory: how many of them,
 * from the first on, fit into its room and are had whole from the page cache. Neighbours are
 * read in one call. */
int uf_read_many_nowait(int fd, char *memory, int64_t room, const int64_t *sizes,
			const int64_t *offsets, int n);

/* open(2) of an existing regular file whose path the kernel has cached, on one of n
 * mounts that are local: a descriptor. -EAGAIN: ask by a way that may wait.
 * openat2(RESOLVE_CACHED), Linux 5.12. */
int uf_open_cached(const char *path, int flags, const uint64_t *local_mounts, int n);

/* open(2) with O_PATH of whatever the path leads to (flags may have O_NOFOLLOW), if the
 * kernel has it cached and it is on one of n mounts that are local: a descriptor. -ENOENT,
 * -ENOTDIR, -ENAMETOOLONG: what open(2) would say. -EXDEV: on another mount, whose number
 * is in *mount. -EAGAIN: ask by a way that may wait. Linux 6.8. */
int uf_open_path_cached(const char *path, int flags, const uint64_t *local_mounts, int n,
			uint64_t *mount);

/* n files whole, as far as uf_open_cached() would open them and the page cache has them:
 * their data, one behind the other, into memory, and their sizes; -EAGAIN for one that is
 * to be read by a way that may wait, or that does not fit. paths are strings, one behind
 * the other. How many were looked at: fewer when memory, of room bytes, is full. */
int uf_read_cached_files(const char *paths, int n, char *memory, int64_t room, int64_t *sizes,
			 const uint64_t *local_mounts, int n_mounts);

/* Read and write length bytes at the positions of both files, by way of memory: how many,
 * fewer at the end of the file. Waits. */
int64_t uf_copy(int from, int to, int64_t length, char *memory, int64_t room);

/* close(2) by a thread of its own, for those who cannot wait and do not ask for its result.
 * -errno: there is no thread to be had, and fd is open still. Needs no engine. */
int uf_close_in_thread(int fd);

/* How many of those are under way in this process. */
int uf_closing(void);

/* inotify(7), as the system calls are, but -errno. Need no engine; add follows the
 * path, and so may wait for its file system. */
int uf_inotify_open(void);
int uf_inotify_add(int fd, const char *path, uint32_t mask);
int uf_inotify_remove(int fd, int watch);
