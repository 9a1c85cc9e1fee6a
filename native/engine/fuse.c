/* Which ops run together. An op that multiplies by a matrix takes the ops behind it along: a look-up, a multiplication, an
 * addition and an affine map, each at most once, in this order; a recurrence takes the shift behind it. What they hand on
 * then stays in registers, and is written only where another op reads it. Nothing here depends on a particular network. */
#include "build.h"

/* -- which ops fit 16-bit lanes ------------------------------------------------------------------------------------ */

static int is_unary(qs5_kind kind) { return kind == QS5_TABLE || kind == QS5_QGELU || kind == QS5_HARD_SIGMOID; }

static int shift_fits(const qs5_op *op) { return op->numbers[0] >= 0 && op->numbers[0] <= 15; }

int qs5_fits_words(const qs5_op *op) {
  if (op->to->type == QS5_U16 || !op->x || op->x->type == QS5_U16 || (op->y && op->y->type == QS5_U16)) return 0;
  if (is_unary(op->kind)) return op->bytes_table && op->x->size == 1 && op->to->size == 1;
  switch (op->kind) {
  case QS5_AFFINE: return op->M16 != NULL;
  case QS5_SHIFT: return op->right16 && op->x->type == QS5_I16 && op->to->type == QS5_I8;
  case QS5_MULTIPLY: return shift_fits(op) && op->x->high * op->y->high <= INT16_MAX;
  case QS5_ADD: return shift_fits(op);
  default: return 0;
  }
}

/* -- tails --------------------------------------------------------------------------------------------------------- */

/* The place of an op in a tail. */
static const qs5_op **slot(qs5_op *head, const qs5_op *op) {
  qs5_tail *tail = &head->tail;
  if (head->kind == QS5_RECURRENCE) return op->kind == QS5_SHIFT ? &tail->shift : NULL;
  if (is_unary(op->kind)) return &tail->table;
  switch (op->kind) {
  case QS5_MULTIPLY: return &tail->multiply;
  case QS5_ADD: return &tail->add;
  case QS5_AFFINE: return &tail->affine;
  default: return NULL;
  }
}

/* What is handed on must be the input that an addition shifts, or any of a product's; the other one must be there before
 * the head runs. */
static int takes(const qs5_op *op, const qs5_op *head, int32_t handed) {
  if (op->in[0] == handed) return op->kind == QS5_MULTIPLY ? op->in[1] < head->out : op->kind != QS5_ADD;
  return (op->kind == QS5_MULTIPLY || op->kind == QS5_ADD) && op->in[1] == handed && op->in[0] < head->out;
}

/* Whether an op behind the tail, or the pool or the answer, reads a signal. */
static int read_later(const qs5_model *model, int32_t signal, int32_t first) {
  if (signal == model->count) return 1;
  for (int32_t i = first; i < model->count; ++i)
    for (int j = 0; j < QS5_MAX_READS; ++j)
      if (model->ops[i].in[j] == signal) return 1;
  return 0;
}

/* The tail of the op at `at`; returns the position behind it. */
static int32_t gather(qs5_model *model, int32_t at) {
  qs5_op *head = &model->ops[at];
  const qs5_op **last = NULL;
  int32_t next = at + 1;
  for (; next < model->count && next != model->pool; ++next) {
    qs5_op *op = &model->ops[next];
    const qs5_op **place = slot(head, op);
    if (!place || (last && place <= last) || !qs5_fits_words(op) || !takes(op, head, next)) break;
    *place = op;
    last = place;
    op->in_tail = 1;
    op->other = op->in[0] == next;
    head->tail.any = 1;
  }
  for (int32_t i = at; i < next; ++i) {
    const int last_one = i + 1 == next; /* what the next one of the tail reads is handed on to it */
    model->ops[i].kept = read_later(model, i + 1, last_one ? i + 1 : i + 2);
    model->stage_of[i] = at;
  }
  return next;
}

void qs5_fuse(qs5_model *model, int fused) {
  for (int32_t at = 0; at < model->count;) {
    qs5_op *op = &model->ops[at];
    const int head = op->kind == QS5_DENSE || op->kind == QS5_OUTPUT || op->kind == QS5_RECURRENCE;
    op->kept = 1;
    model->stage_of[at] = at;
    at = fused && head && op->to->type != QS5_U16 ? gather(model, at) : at + 1;
  }
}
