/* Duplicates of one descriptor. glibc runs the AIO requests of one descriptor
 * one after another, so requests that shall run beside each other need one
 * each. They also mean that the caller's own descriptor number may be closed
 * while a request that cannot be stopped still runs. */
#ifndef UF_LANES_H
#define UF_LANES_H

/* Measured from Python on two cores, O_DIRECT 4 KiB reads with 64 in flight: 4 lanes
 * 43,000/s, 8 lanes 57,000/s, 16 lanes 62,000/s, 32 lanes 30,000/s (the more threads,
 * the more of them must be woken). */
#define UF_LANES 16

struct uf_lane {
	int fd;
	int borrowed;  /* the caller's own: not ours to close */
	unsigned busy; /* requests on it */
};

struct uf_lanes {
	struct uf_lanes *next;
	int fd;	    /* whose duplicates these are; -1: forgotten */
	int serial; /* a stream: a lane for reads, one for writes */
	int direct; /* O_DIRECT */
	unsigned count;
	unsigned busy;
	struct uf_lane lane[UF_LANES];
};

/* Take a lane of fd, an idle one if there is one or one can be made, and count
 * a request on it. Buffered writes share one: the file system lets only one at a
 * time into a file anyway (measured on ext4, 64 writes of 4 KiB in flight: 97,000/s
 * on one lane, 53,000/s on 32). 0 or -errno. */
int uf_lanes_take(struct uf_lanes **all, int fd, int writing, struct uf_lanes **lanes,
		  struct uf_lane **lane);
/* The request is done with it. at_end: nobody minds waiting any more. */
void uf_lanes_give(struct uf_lanes **all, struct uf_lanes *lanes, struct uf_lane *lane, int at_end);

/* fd is about to be closed. Its idle lanes are handed over to be closed, which on NFS
 * and FUSE may wait and may fail; how many. Those that are busy are closed when all of
 * them are idle, by threads. */
int uf_lanes_forget(struct uf_lanes **all, int fd, int *out, int max);
void uf_lanes_close_all(struct uf_lanes **all);

#endif
