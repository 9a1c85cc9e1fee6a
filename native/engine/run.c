/* Runs a model: cuts sequences into blocks, quantizes the input, collects for the pool. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

struct qs5_work {
  int64_t rows;
  void *memory;
  unsigned char **at;
  int32_t *wide[4], *sums;
  int64_t wide_stride;
  void *inputs;
  int64_t *saturated;
};

/* -- the workspace ----------------------------------------------------------------------------------------------- */

static size_t carve(size_t *used, size_t bytes) {
  const size_t begin = *used;
  *used += (bytes + QS5_PAD - 1) / QS5_PAD * QS5_PAD;
  return begin;
}

qs5_work *qs5_work_new(const qs5_model *model, int64_t rows) {
  if (rows < 1 || rows > ((int64_t)1 << 40) / model->row_bytes) return NULL;
  const size_t n = (size_t)model->count + 1, wide = (size_t)model->max_channels;
  size_t used = QS5_PAD;
  const size_t at = carve(&used, n * sizeof(unsigned char *)), counters = carve(&used, n * sizeof(int64_t));
  const size_t scratch = carve(&used, 4 * wide * sizeof(int32_t));
  const size_t inputs = carve(&used, (size_t)(rows + QS5_PRODUCT_ROWS) * wide * sizeof(int16_t));
  const size_t sums = carve(&used, QS5_PRODUCT_ROWS * wide * sizeof(int32_t));
  const size_t signals = carve(&used, (size_t)(rows * model->row_bytes));
  qs5_work *work = calloc(1, sizeof *work);
  unsigned char *memory = work ? calloc(used, 1) : NULL;
  if (!memory) return free(work), NULL;
  work->memory = memory;
  memory += (QS5_PAD - (uintptr_t)memory % QS5_PAD) % QS5_PAD - QS5_PAD; /* carving began at QS5_PAD */
  work->rows = rows;
  work->at = (unsigned char **)(void *)(memory + at);
  work->inputs = memory + inputs;
  work->sums = (int32_t *)(void *)(memory + sums);
  work->wide_stride = model->max_channels;
  for (size_t i = 0; i < 4; ++i) work->wide[i] = (int32_t *)(void *)(memory + scratch) + i * wide;
  if (model->counting) work->saturated = (int64_t *)(void *)(memory + counters);
  for (size_t s = 0; s < n; ++s) work->at[s] = memory + signals + rows * model->signals[s].place;
  return work;
}

void qs5_work_free(qs5_work *work) {
  if (!work) return;
  free(work->memory);
  free(work);
}

void qs5_work_saturated(const qs5_model *model, qs5_work *work, int64_t *counts) {
  for (int32_t i = 0; work->saturated && i <= model->count; ++i) {
    counts[i] += work->saturated[i];
    work->saturated[i] = 0;
  }
}

/* -- input ------------------------------------------------------------------------------------------------------- */

static int64_t raw_at(const void *raw, qs5_type type, int64_t i) {
  switch (type) {
  case QS5_I8: return ((const int8_t *)raw)[i];
  case QS5_U8: return ((const uint8_t *)raw)[i];
  case QS5_I16: return ((const int16_t *)raw)[i];
  case QS5_U16: return ((const uint16_t *)raw)[i];
  default: return ((const int32_t *)raw)[i];
  }
}

static void put_code(const qs5_info *info, unsigned char *row, int32_t c, int64_t code) {
  if (info->size == 1) row[c] = (uint8_t)code;
  else ((uint16_t *)(void *)row)[c] = (uint16_t)code;
}

/* Codes of `rows` samples, which start at number `first` of raw. */
static void quantize(const qs5_model *model, qs5_work *work, const void *raw, qs5_type type, int64_t first, int64_t rows,
                     int64_t at_row) {
  const qs5_info *info = &model->signals[0];
  for (int64_t k = 0; k < rows; ++k) {
    unsigned char *row = work->at[0] + (at_row + k) * info->stride;
    for (int32_t c = 0; c < info->channels; ++c) {
      int64_t code = raw_at(raw, type, (first + k) * info->channels + c);
      if (model->input_multipliers) code = (code * model->input_M[c] + model->input_offset[c]) >> model->input_shift;
      const int64_t kept = code < info->low ? info->low : code > info->high ? info->high : code;
      if (work->saturated && kept != code) ++work->saturated[0];
      put_code(info, row, c, kept);
    }
  }
}

/* -- records ----------------------------------------------------------------------------------------------------- */

static int32_t code_at(const qs5_info *info, const unsigned char *row, int32_t c) {
  return (int32_t)raw_at(row, info->type, c);
}

/* `steps` more rows for the pool; `end`: the last of them is the last of this call. */
static void collect(const qs5_model *model, const qs5_work *work, int64_t first, int64_t steps, int end,
                    unsigned char *record) {
  const qs5_record *layout = &model->record;
  const int32_t signal = model->ops[model->pool].in[0];
  const qs5_info *info = &model->signals[signal];
  const unsigned char *rows = work->at[signal] + first * info->stride;
  if (steps < 1) return;
  model->accumulate(info, rows, steps, (int64_t *)(void *)(record + layout->total_at));
  int32_t *last = (int32_t *)(void *)(record + layout->last_at);
  for (int32_t c = 0; end && c < info->channels; ++c) last[c] = code_at(info, rows + (steps - 1) * info->stride, c);
  *(int64_t *)(void *)(record + layout->steps_at) += steps;
}

/* Those of ops first .. end - 1 that are not in a tail. */
static void run_ops(const qs5_model *model, int32_t first, int32_t end, const qs5_block *block) {
  for (const qs5_op *op = model->ops + first; op < model->ops + end; ++op)
    if (!op->in_tail) op->run(op, block);
}

/* -- blocks ------------------------------------------------------------------------------------------------------ */

static qs5_block block_of(const qs5_model *model, qs5_work *work, unsigned char *records, int64_t sequences, int64_t steps) {
  return (qs5_block){sequences, steps, sequences * steps, work->at, records, (int64_t)model->record.bytes,
                     work->saturated, {work->wide[0], work->wide[1], work->wide[2], work->wide[3]},
                     work->wide_stride, work->sums, work->inputs};
}

static void write_outputs(const qs5_model *model, const qs5_work *work, int64_t rows, int64_t at_row, int32_t *to) {
  const qs5_info *info = &model->signals[model->count];
  for (int64_t k = 0; k < rows; ++k)
    for (int32_t c = 0; c < info->channels; ++c)
      to[k * info->channels + c] = code_at(info, work->at[model->count] + (at_row + k) * info->stride, c);
}

typedef struct {
  const void *raw;
  qs5_type type;
  int64_t steps; /* of the whole call */
  const int64_t *lengths;
  unsigned char *records;
  int32_t *outputs;
} job;

/* Steps begin .. begin + steps - 1 of sequences first .. first + sequences - 1. */
static void run_block(const qs5_model *model, qs5_work *work, const job *job, int64_t first, int64_t sequences,
                      int64_t begin, int64_t steps) {
  unsigned char *records = job->records + (size_t)first * model->record.bytes;
  const qs5_block block = block_of(model, work, records, sequences, steps);
  for (int64_t s = 0; s < sequences; ++s)
    quantize(model, work, job->raw, job->type, (first + s) * job->steps + begin, steps, s * steps);
  run_ops(model, 0, model->pool, &block);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t end = job->lengths ? job->lengths[first + s] : job->steps;
    const int64_t counted = end - begin < steps ? end - begin : steps;
    const int ends = begin + steps >= end;
    const int64_t at = ((first + s) * job->steps + begin) * model->signals[model->count].channels;
    if (qs5_has_pool(model)) collect(model, work, s * steps, counted, ends, records + (size_t)s * model->record.bytes);
    else if (job->outputs) write_outputs(model, work, steps, s * steps, job->outputs + at);
  }
}

/* A sequence goes no further than the pool needs, but where a scan from the right reads its padding. */
static int64_t steps_needed(const qs5_model *model, const job *job, int64_t sequence) {
  const int reads_padding = model->bidirectional && !model->masked;
  return job->lengths && qs5_has_pool(model) && !reads_padding ? job->lengths[sequence] : job->steps;
}

void qs5_run(const qs5_model *model, qs5_work *work, int64_t sequences, int64_t steps, const void *raw, qs5_type type,
             const int64_t *lengths, unsigned char *records, int32_t *outputs) {
  const job job = {raw, type, steps, lengths, records, outputs};
  const int together = !lengths && steps < work->rows; /* short chunks of several sequences fill one block */
  const int64_t group = together && steps ? work->rows / steps : 1;
  for (int64_t first = 0; first < sequences; first += group) {
    const int64_t n = sequences - first < group ? sequences - first : group;
    const int64_t needed = steps_needed(model, &job, first);
    for (int64_t begin = 0; begin < needed; begin += work->rows) {
      const int64_t left = needed - begin;
      run_block(model, work, &job, first, n, begin, left < work->rows ? left : work->rows);
    }
  }
}

/* -- the answer -------------------------------------------------------------------------------------------------- */

static int64_t floor_divide(int64_t a, int64_t n) { return a / n - (a % n != 0 && a < 0); }

static void pool(const qs5_model *model, qs5_work *work, const unsigned char *record) {
  const qs5_op *op = &model->ops[model->pool];
  const int64_t *total = (const int64_t *)(const void *)(record + model->record.total_at);
  const int32_t *last = (const int32_t *)(const void *)(record + model->record.last_at);
  const int64_t n = *(const int64_t *)(const void *)(record + model->record.steps_at);
  for (int32_t c = 0; c < op->to->channels; ++c) {
    const int64_t code = op->kind == QS5_MEAN_POOL ? floor_divide(total[c] + n / 2, n) : last[c];
    put_code(op->to, work->at[op->out], c, code);
  }
}

void qs5_answer(const qs5_model *model, qs5_work *work, int64_t sequences, const unsigned char *records, int32_t *outputs) {
  const qs5_block block = block_of(model, work, NULL, 1, 1);
  for (int64_t s = 0; s < sequences; ++s) {
    pool(model, work, records + (size_t)s * model->record.bytes);
    run_ops(model, model->pool + 1, model->count, &block);
    write_outputs(model, work, 1, 0, outputs + s * qs5_output_channels(model));
  }
}
