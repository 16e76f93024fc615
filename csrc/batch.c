/* Batches, the same for every engine. Tokens of parts have bit 62 set, which no
 * caller's token has; below it the batch's generation (22 bits), its slot (8) and the
 * part's index (32). */
#include "engine.h"

#define PART_TOKEN (INT64_C(1) << 62)
#define SLOT_SHIFT 32
#define GENERATION_SHIFT 40
#define GENERATIONS (1u << 22)

#define MAX_PARTS (1u << 20)

/* No completion has this result. */
#define PENDING INT64_MIN

static int64_t part_token(const struct uf_batches *batches, const struct uf_batch *batch,
			  unsigned i)
{
	return PART_TOKEN | (int64_t)batch->generation << GENERATION_SHIFT |
	       (int64_t)(batch - batches->slots) << SLOT_SHIFT | i;
}

/* The batch of a part that is in flight; NULL for a completion that is one too many. */
static struct uf_batch *batch_of(struct uf_batches *batches, int64_t token)
{
	unsigned slot = token >> SLOT_SHIFT & 0xff, i = (uint32_t)token;
	struct uf_batch *batch;

	if (!(token & PART_TOKEN) || slot >= UF_BATCHES)
		return NULL;
	batch = &batches->slots[slot];
	if (!batch->parts || i >= batch->n || part_token(batches, batch, i) != token ||
	    batch->parts[i].result != PENDING)
		return NULL;
	return batch;
}

static void settle(struct uf_batches *batches, struct uf_batch *batch, unsigned i, int64_t result)
{
	batch->parts[i].result = result;
	if (!--batch->left)
		batches->n_done++;
}

static int waits(const struct uf_batch *batch)
{
	return batch->parts && batch->staged < batch->n;
}

/* Others must go on when all parts hang: a batch takes at most as much room as it leaves,
 * so the next one does, too. */
static int has_room(const uf_engine *engine, const struct uf_batch *batch)
{
	unsigned in_flight = batch->left - (batch->n - batch->staged);

	if (batch->flags & UF_ASYNC && in_flight >= engine->worker_share)
		return 0;
	return engine->in_flight < engine->capacity &&
	       (!in_flight || in_flight < engine->capacity - engine->in_flight);
}

static unsigned stage(uf_engine *engine, struct uf_batch *batch)
{
	struct uf_batches *batches = &engine->batches;
	unsigned before = batch->staged;

	while (waits(batch) && has_room(engine, batch)) {
		unsigned i = batch->staged;
		struct uf_op op = {
			.opcode = batch->opcode,
			.flags = batch->flags,
			.fd = batch->fd,
			.addr = batch->parts[i].addr,
			.len = batch->parts[i].len,
			.offset = batch->parts[i].offset,
			.token = part_token(batches, batch, i),
		};
		int ret = uf_offer(engine, &op);

		if (ret == -EAGAIN)
			break;
		batch->staged++;
		if (ret)
			settle(batches, batch, i, ret);
	}
	if (!waits(batch))
		batches->n_waiting--;
	return batch->staged - before;
}

unsigned uf_batch_stage(uf_engine *engine)
{
	struct uf_batches *batches = &engine->batches;
	unsigned n = 0;

	for (int i = 0; i < UF_BATCHES && batches->n_waiting; i++)
		if (waits(&batches->slots[i]))
			n += stage(engine, &batches->slots[i]);
	return n;
}

static struct uf_batch *free_slot(struct uf_batches *batches)
{
	for (int i = 0; i < UF_BATCHES; i++)
		if (!batches->slots[i].parts)
			return &batches->slots[i];
	return NULL;
}

int uf_batch_submit(uf_engine *engine, const struct uf_op *op)
{
	struct uf_batches *batches = &engine->batches;
	struct uf_batch *batch = free_slot(batches);
	uf_part *parts = op->addr;

	if (!op->len || op->len > MAX_PARTS || (op->opcode != UF_READ && op->opcode != UF_WRITE))
		return -EINVAL;
	for (uint64_t i = 0; i < op->len; i++)
		if (parts[i].offset < 0)
			return -EINVAL;
	if (!batch)
		return -EAGAIN;
	*batch = (struct uf_batch){
		.parts = parts,
		.n = (unsigned)op->len,
		.left = (unsigned)op->len,
		.opcode = op->opcode,
		.flags = op->flags,
		.fd = op->fd,
		.token = op->token,
		.generation = batches->generation++ % GENERATIONS,
	};
	for (unsigned i = 0; i < batch->n; i++)
		parts[i].result = PENDING;
	batches->n_waiting++;
	if (!stage(engine, batch)) {
		batches->n_waiting--;
		batch->parts = NULL;
		return -EAGAIN;
	}
	return 0;
}

int uf_batch_settle(uf_engine *engine, uf_completion *out, int n, int max)
{
	struct uf_batches *batches = &engine->batches;
	int kept = 0;

	for (int i = 0; i < n; i++) {
		struct uf_batch *batch = batch_of(batches, out[i].token);

		if (batch)
			settle(batches, batch, (uint32_t)out[i].token, out[i].result);
		else
			out[kept++] = out[i];
	}
	for (int i = 0; i < UF_BATCHES && batches->n_done && kept < max; i++) {
		struct uf_batch *batch = &batches->slots[i];

		if (!batch->parts || batch->left)
			continue;
		out[kept].token = batch->token;
		out[kept++].result = 0;
		batch->parts = NULL;
		batches->n_done--;
	}
	return kept;
}

static struct uf_batch *find(struct uf_batches *batches, int64_t token)
{
	for (int i = 0; i < UF_BATCHES; i++)
		if (batches->slots[i].parts && batches->slots[i].token == token)
			return &batches->slots[i];
	return NULL;
}

int uf_batch_cancel(uf_engine *engine, int64_t token, int *found)
{
	struct uf_batches *batches = &engine->batches;
	struct uf_batch *batch = find(batches, token);
	int answer = 0;

	*found = batch != NULL;
	if (!batch)
		return 0;
	if (waits(batch)) {
		unsigned staged = batch->staged;

		batches->n_waiting--;
		while (batch->staged < batch->n)
			settle(batches, batch, batch->staged++, -ECANCELED);
		batch->n = staged;
		if (!batch->left)
			uf_signal(engine);
	}
	/* From the last on: POSIX AIO can cancel only what nothing is queued behind. */
	for (; batch->cancelled < batch->n; batch->cancelled++) {
		unsigned i = batch->n - 1 - batch->cancelled;
		int ret;

		if (batch->parts[i].result != PENDING)
			continue;
		ret = engine->ops->cancel(engine, part_token(batches, batch, i));
		if (ret == -EAGAIN)
			return ret;
		if (ret == -EBUSY || (ret == -EALREADY && !answer))
			answer = ret;
	}
	return answer;
}
