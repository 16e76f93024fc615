/* The places where a fault can be put in on purpose (fault_api.h). Without -DUF_FAULTS
 * each of them is nothing. */
#ifndef UF_FAULT_H
#define UF_FAULT_H

#include <stdint.h>
#include <stdlib.h>

#include "fault_api.h"

#ifdef UF_FAULTS

/* The value, when the point is struck; else 0. */
int64_t uf_fault(int point);

void *uf_calloc(size_t n, size_t size);
void uf_free(void *block);

#else

static inline int64_t uf_fault(int point)
{
	(void)point;
	return 0;
}

static inline void *uf_calloc(size_t n, size_t size)
{
	return calloc(n, size);
}

static inline void uf_free(void *block)
{
	free(block);
}

#endif

#endif
