#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "lanes.h"

#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int add_lane(struct uf_lanes *lanes)
{
	int fault = (int)uf_fault(UF_FAULT_DUP);
	int fd = fault ? fault : fcntl(lanes->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return fault ? fault : -errno;
	lanes->lane[lanes->count++].fd = fd;
	return 0;
}

static int is_stream(int fd)
{
	uf_identity identity; /* fstat would ask an NFS or FUSE server */

	return uf_identify(fd, &identity) || !(S_ISREG(identity.mode) || S_ISBLK(identity.mode));
}

static struct uf_lanes *find(struct uf_lanes *all, int fd)
{
	while (all && all->fd != fd)
		all = all->next;
	return all;
}

static void unlink_and_free(struct uf_lanes **all, struct uf_lanes *lanes, int may_wait)
{
	while (*all != lanes)
		all = &(*all)->next;
	*all = lanes->next;
	for (unsigned i = 0; i < lanes->count; i++) {
		int fd = lanes->lane[i].fd;

		if (!lanes->lane[i].borrowed && (may_wait || uf_close_in_thread(fd)))
			close(fd);
	}
	uf_free(lanes);
}

static int create(struct uf_lanes **all, int fd, struct uf_lanes **out)
{
	struct uf_lanes *lanes = uf_calloc(1, sizeof(*lanes));
	int ret;

	if (!lanes)
		return -ENOMEM;
	lanes->fd = fd;
	lanes->serial = is_stream(fd);
	lanes->direct = fcntl(fd, F_GETFL) & O_DIRECT;
	ret = add_lane(lanes);
	if (ret == -EMFILE || ret == -ENFILE) {
		lanes->lane[0].fd = fd;
		lanes->lane[0].borrowed = 1;
		lanes->count = 1;
	} else if (ret) {
		uf_free(lanes);
		return ret;
	}
	lanes->next = *all;
	*all = lanes;
	*out = lanes;
	return 0;
}

static struct uf_lane *least_busy(struct uf_lanes *lanes, unsigned most)
{
	unsigned n = lanes->count < most ? lanes->count : most;
	struct uf_lane *best = &lanes->lane[0];

	for (unsigned i = 1; i < n && best->busy; i++)
		if (lanes->lane[i].busy < best->busy)
			best = &lanes->lane[i];
	return best;
}

/* A stream keeps the order of its reads, and that of its writes; neither waits for the
 * other. */
static struct uf_lane *serial_lane(struct uf_lanes *lanes, int writing)
{
	if (writing && lanes->count < 2 && add_lane(lanes))
		return &lanes->lane[0];
	return &lanes->lane[writing ? 1 : 0];
}

int uf_lanes_take(struct uf_lanes **all, int fd, int writing, struct uf_lanes **out,
		  struct uf_lane **lane)
{
	struct uf_lanes *lanes = find(*all, fd);
	unsigned most = 0;
	int ret;

	if (!lanes) {
		ret = create(all, fd, &lanes);
		if (ret)
			return ret;
	}
	if (lanes->serial) {
		*lane = serial_lane(lanes, writing);
	} else {
		most = writing && !lanes->direct ? 1 : UF_LANES;
		*lane = least_busy(lanes, most);
	}
	/* Out of descriptors: share a lane, which is slower but no error. */
	if (!lanes->serial && (*lane)->busy && lanes->count < most && !add_lane(lanes))
		*lane = &lanes->lane[lanes->count - 1];
	(*lane)->busy++;
	lanes->busy++;
	*out = lanes;
	return 0;
}

void uf_lanes_give(struct uf_lanes **all, struct uf_lanes *lanes, struct uf_lane *lane, int at_end)
{
	lane->busy--;
	lanes->busy--;
	if (lanes->busy)
		return;
	if (lanes->fd < 0)
		unlink_and_free(all, lanes, at_end);
}

int uf_lanes_forget(struct uf_lanes **all, int fd, int *out, int max)
{
	struct uf_lanes *lanes = find(*all, fd);
	int n = 0;

	if (!lanes)
		return 0;
	lanes->fd = -1;
	if (lanes->busy)
		return 0;
	while (lanes->count && n < max) {
		struct uf_lane *lane = &lanes->lane[--lanes->count];

		if (!lane->borrowed)
			out[n++] = lane->fd;
	}
	unlink_and_free(all, lanes, 0);
	return n;
}

void uf_lanes_close_all(struct uf_lanes **all)
{
	while (*all)
		unlink_and_free(all, *all, 1);
}
