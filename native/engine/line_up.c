/* Where constants are in memory. A single step reads all of them once, from a cache further away than the nearest: what it
 * waits for least is one stream. So the constants of all ops follow each other as the step reads them: what a product
 * begins with, its weights, what it ends with, then those of the ops in its tail. */
#include "build.h"

#include <string.h>

typedef struct {
  unsigned char *to; /* NULL: only count */
  int64_t bytes;
} line;

/* An array behind those that are there; as qs5_take gave it, it has room for a multiple of QS5_PAD numbers. */
static void *moved(line *line, void *array, int64_t numbers, size_t size) {
  const int64_t bytes = (numbers + QS5_PAD - 1) / QS5_PAD * QS5_PAD * (int64_t)size;
  if (!array) return NULL;
  if (line->to) array = memcpy(line->to + line->bytes, array, (size_t)bytes);
  line->bytes += bytes;
  return array;
}

static void add_product(line *line, qs5_op *op) {
  const int64_t n = op->to->channels;
  op->bias = moved(line, op->bias, n, sizeof *op->bias);
  op->D16 = moved(line, op->D16, n, sizeof *op->D16);
  op->M16 = moved(line, op->M16, n, sizeof *op->M16);
  op->shift2 = moved(line, op->shift2, n, sizeof *op->shift2);
  if (op->narrow) op->narrow = moved(line, op->narrow, op->narrow_bytes, 1);
  else op->weight = moved(line, op->weight, (n + 31) / 32 * 32 * op->groups * 4, 1);
  op->scale.packed = moved(line, op->scale.packed, n, sizeof *op->scale.packed);
  if (op->scale.raised) op->scale.left = moved(line, op->scale.left, n, sizeof *op->scale.left);
}

static void add_other(line *line, qs5_op *op) {
  const int64_t n = op->to->channels, modes = (n / 2 + QS5_PAD - 1) / QS5_PAD * QS5_PAD;
  op->bytes_table = moved(line, op->bytes_table, 256, 1);
  op->M16 = moved(line, op->M16, n, sizeof *op->M16);
  op->offset2 = moved(line, op->offset2, n, sizeof *op->offset2);
  op->shift2 = moved(line, op->shift2, n, sizeof *op->shift2);
  op->rotation = moved(line, op->rotation, 2 * modes, sizeof *op->rotation);
  op->right16 = moved(line, op->right16, n, sizeof *op->right16);
}

static void add_all(line *line, qs5_model *model) {
  for (int32_t i = 0; i < model->pool; ++i) {
    qs5_op *op = &model->ops[i];
    if (op->kind == QS5_DENSE || op->kind == QS5_OUTPUT) add_product(line, op);
    else add_other(line, op);
  }
}

void qs5_line_up(qs5_build *build) {
  line line = {NULL, 0};
  add_all(&line, build->model);
  line.to = qs5_take(build, line.bytes, 1);
  line.bytes = 0;
  if (line.to) add_all(&line, build->model);
}
