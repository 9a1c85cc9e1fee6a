/* Every op in plain C, compiled once for each instruction set: loops that compilers vectorise. A row of codes is
 * widened to int32, the op computes on that, and the result is saturated and narrowed.
 *
 * `>>` of a negative number is taken to be arithmetic, as every compiler we know has it; build.c tests it. */
#include "plan.h"
#include "product.h"
#include "rows.h"

#define QS5_JOIN(a, b) a##b
#define QS5_NAME(a, b) QS5_JOIN(a, b)

/* -- rows ------------------------------------------------------------------------------------------------------ */

static void narrow(const qs5_info *info, const int32_t *restrict v, int32_t n, void *row) {
  const int32_t low = info->low, high = info->high;
  uint8_t *bytes = row;
  uint16_t *halves = row;
  if (info->size == 1) {
    for (int32_t i = 0; i < n; ++i) bytes[i] = (uint8_t)clamp(v[i], low, high);
  } else {
    for (int32_t i = 0; i < n; ++i) halves[i] = (uint16_t)clamp(v[i], low, high);
  }
}

static const int32_t *read_row(const qs5_op *op, const qs5_block *block, int input, int64_t row) {
  const qs5_info *info = input == 0 ? op->x : input == 1 ? op->y : op->u;
  widen(info, qs5_row(block, info, op->in[input], row), info->channels, block->wide[input]);
  return block->wide[input];
}

static void write_row(const qs5_op *op, const qs5_block *block, int64_t row, const int32_t *v) {
  const qs5_info *to = op->to;
  if (block->saturated) {
    int64_t beyond = 0;
    for (int32_t i = 0; i < to->channels; ++i) beyond += v[i] < to->low || v[i] > to->high;
    block->saturated[op->out] += beyond;
  }
  narrow(to, v, to->channels, qs5_row_out(op, block, row));
}

/* -- products ---------------------------------------------------------------------------------------------------- */

static void rescale_row(const qs5_rescale *by, int32_t n, int32_t *v) {
  const int32_t *M = by->M, *shift = by->shift, *left = by->left;
  for (int32_t i = 0; i < n; ++i) v[i] = rescale(v[i], M[i], shift[i], left[i]);
}

static void add_direct(const qs5_op *op, const int32_t *u, int32_t *v, int32_t *scratch) {
  const int32_t limit = 1 << 24;
  for (int32_t i = 0; i < op->outputs; ++i) scratch[i] = u[i] * op->D[i];
  rescale_row(&op->direct, op->outputs, scratch);
  for (int32_t i = 0; i < op->outputs; ++i) v[i] += clamp(scratch[i], -limit, limit);
}

static void dense(const qs5_op *op, const qs5_block *block) {
  const int64_t stride = block->wide_stride;
  for (int64_t first = 0; first < block->rows; first += QS5_PRODUCT_ROWS) {
    const int rows = (int)(block->rows - first < QS5_PRODUCT_ROWS ? block->rows - first : QS5_PRODUCT_ROWS);
    for (int r = 0; r < rows; ++r) inputs16(op, block, first + r, (int16_t *)block->inputs + r * stride);
    product(op, rows, block->inputs, stride, block->sums, stride);
    for (int r = 0; r < rows; ++r) {
      int32_t *v = block->sums + r * stride;
      if (op->kind == QS5_OUTPUT) add_direct(op, read_row(op, block, 2, first + r), v, block->wide[0]);
      rescale_row(&op->scale, op->outputs, v);
      write_row(op, block, first + r, v);
    }
  }
}

/* -- ops without memory ------------------------------------------------------------------------------------------ */

static void embedding(const qs5_op *op, const qs5_block *block) {
  const int64_t stride = op->to->stride / op->to->size;
  for (int64_t row = 0; row < block->rows; ++row) {
    const int32_t token = clamp(*read_row(op, block, 0, row), 0, op->tokens - 1);
    narrow(op->to, op->table + token * stride, op->to->channels, qs5_row_out(op, block, row));
  }
}

static void affine_row(const qs5_op *op, const int32_t *restrict x, int32_t *restrict v) {
  const int32_t *M = op->M, *offset = op->offset, *shift = op->shift;
  for (int32_t i = 0; i < op->to->channels; ++i) v[i] = (x[i] * M[i] + offset[i]) >> shift[i];
}

static void affine(const qs5_op *op, const qs5_block *block) {
  for (int64_t row = 0; row < block->rows; ++row) {
    affine_row(op, read_row(op, block, 0, row), block->wide[3]);
    write_row(op, block, row, block->wide[3]);
  }
}

static int bits_of(uint32_t v) {
  int n = 0;
  for (; v; v >>= 1) ++n;
  return n;
}

static uint32_t square_root(uint32_t v) {
  uint32_t root = 0;
  for (uint32_t bit = 1u << 15; bit; bit >>= 1)
    if ((root + bit) * (root + bit) <= v) root += bit;
  return root;
}

/* The channels of one step less their mean, of norm 2^15 (SPEC.md 4.5): x -> v, also in place. */
static void normalize(const qs5_op *op, int32_t *x) {
  const int32_t n = op->to->channels;
  int32_t sum = 0, top = 0;
  for (int32_t i = 0; i < n; ++i) sum += x[i];
  for (int32_t i = 0; i < n; ++i) {
    const int32_t d = n * x[i] - sum;
    x[i] = d;
    top = most(top, most(d, -d));
  }
  const int t = (int)most(bits_of((uint32_t)top) - op->square_bits, 0);
  const int32_t half = t ? 1 << (t - 1) : 0;
  uint32_t V = 0;
  for (int32_t i = 0; i < n; ++i) {
    x[i] = (x[i] + half) >> t;
    V += (uint32_t)(x[i] * x[i]);
  }
  if (!V) return; /* all are 0 */
  const int z = (32 - bits_of(V)) / 2, s = 16 - z;
  const int32_t r = (int32_t)((1u << 31) / square_root(V << (2 * z)));
  for (int32_t i = 0; i < n; ++i) x[i] = clamp((x[i] * r + (1 << (s - 1))) >> s, -32767, 32767);
}

static void layer_norm(const qs5_op *op, const qs5_block *block) {
  for (int64_t row = 0; row < block->rows; ++row) {
    read_row(op, block, 0, row);
    normalize(op, block->wide[0]);
    affine_row(op, block->wide[0], block->wide[3]);
    write_row(op, block, row, block->wide[3]);
  }
}

static void shift(const qs5_op *op, const qs5_block *block) {
  const int32_t *left = op->left, *half = op->half, *right = op->right;
  int32_t *v = block->wide[3];
  for (int64_t row = 0; row < block->rows; ++row) {
    const int32_t *x = read_row(op, block, 0, row);
    for (int32_t i = 0; i < op->to->channels; ++i) v[i] = (x[i] * (1 << left[i]) + half[i]) >> right[i];
    write_row(op, block, row, v);
  }
}

static void table(const qs5_op *op, const qs5_block *block) {
  int32_t *v = block->wide[3];
  for (int64_t row = 0; row < block->rows; ++row) {
    const uint8_t *x = qs5_row(block, op->x, op->in[0], row);
    for (int32_t i = 0; i < op->to->channels; ++i) v[i] = op->table[x[i]];
    write_row(op, block, row, v);
  }
}

static void qgelu(const qs5_op *op, const qs5_block *block) {
  const int32_t offset = op->numbers[0], s = op->numbers[1];
  int32_t *v = block->wide[3];
  for (int64_t row = 0; row < block->rows; ++row) {
    const int32_t *x = read_row(op, block, 0, row);
    for (int32_t i = 0; i < op->to->channels; ++i) v[i] = shift_by(x[i] * clamp(x[i] + offset, 0, 2 * offset), s);
    write_row(op, block, row, v);
  }
}

static void hard_sigmoid(const qs5_op *op, const qs5_block *block) {
  const int32_t offset = op->numbers[0];
  const int32_t M = *op->scale.M, s = *op->scale.shift, left = *op->scale.left;
  int32_t *v = block->wide[3];
  for (int64_t row = 0; row < block->rows; ++row) {
    const int32_t *x = read_row(op, block, 0, row);
    for (int32_t i = 0; i < op->to->channels; ++i) v[i] = rescale(clamp(x[i] + offset, 0, 2 * offset), M, s, left);
    write_row(op, block, row, v);
  }
}

static void multiply(const qs5_op *op, const qs5_block *block) {
  const int32_t s = op->numbers[0];
  int32_t *v = block->wide[3];
  for (int64_t row = 0; row < block->rows; ++row) {
    const int32_t *x = read_row(op, block, 0, row), *y = read_row(op, block, 1, row);
    for (int32_t i = 0; i < op->to->channels; ++i) v[i] = shift_by(x[i] * y[i], s);
    write_row(op, block, row, v);
  }
}

static void add(const qs5_op *op, const qs5_block *block) {
  const int32_t s = op->numbers[0];
  int32_t *v = block->wide[3];
  for (int64_t row = 0; row < block->rows; ++row) {
    const int32_t *x = read_row(op, block, 0, row), *y = read_row(op, block, 1, row);
    for (int32_t i = 0; i < op->to->channels; ++i) v[i] = x[i] + shift_by(y[i], s);
    write_row(op, block, row, v);
  }
}

/* -- the recurrence ---------------------------------------------------------------------------------------------- */

/* v = rescale(A q) + x; the two products of a part are summed before the one rounding. */
static void rotate(const qs5_op *op, const int16_t *q, const int32_t *x, int32_t *v) {
  const int32_t modes = op->to->channels / 2, power = op->numbers[1];
  const int16_t *re = op->re, *im = op->im, *q_re = q, *q_im = q + modes;
  if (op->numbers[0] == 1) {
    const int32_t half = 1 << (power - 1);
    for (int32_t i = 0; i < modes; ++i) {
      v[i] = ((re[i] * q_re[i] - im[i] * q_im[i] + half) >> power) + x[i];
      v[modes + i] = ((re[i] * q_im[i] + im[i] * q_re[i] + half) >> power) + x[modes + i];
    }
    return;
  }
  const int32_t M = *op->scale.M, s = *op->scale.shift, left = *op->scale.left;
  for (int32_t i = 0; i < modes; ++i) {
    v[i] = rescale(re[i] * q_re[i] - im[i] * q_im[i], M, s, left) + x[i];
    v[modes + i] = rescale(re[i] * q_im[i] + im[i] * q_re[i], M, s, left) + x[modes + i];
  }
}

static void recurrence(const qs5_op *op, const qs5_block *block) {
  const int32_t n = op->to->channels, reverse = op->numbers[2];
  int32_t *v = block->wide[3];
  for (int64_t sequence = 0; sequence < block->sequences; ++sequence) {
    int16_t *q = qs5_state(op, block, sequence);
    if (reverse)
      for (int32_t i = 0; i < n; ++i) q[i] = 0;
    for (int64_t k = 0; k < block->steps; ++k) {
      const int64_t row = sequence * block->steps + (reverse ? block->steps - 1 - k : k);
      rotate(op, q, read_row(op, block, 0, row), v);
      write_row(op, block, row, v);
      for (int32_t i = 0; i < n; ++i) q[i] = (int16_t)clamp(v[i], op->to->low, op->to->high);
    }
  }
}

/* -- the pool ---------------------------------------------------------------------------------------------------- */

/* Sums of 32 bits hold 2^15 rows of any code; sums of 64 bits hold the sequence. */
static void accumulate(const qs5_info *info, const void *rows, int64_t count, int64_t *restrict total) {
  enum { CHUNK = 64, ROWS = 1 << 15 };
  const unsigned char *from = rows;
  for (; count > 0; count -= ROWS, from += ROWS * info->stride)
    for (int32_t begin = 0; begin < info->channels; begin += CHUNK) {
      const int32_t n = least(info->channels - begin, CHUNK);
      int32_t wide[CHUNK], sums[CHUNK] = {0};
      for (int64_t row = 0; row < (count < ROWS ? count : ROWS); ++row) {
        widen(info, from + row * info->stride + (int64_t)begin * info->size, n, wide);
        for (int32_t i = 0; i < n; ++i) sums[i] += wide[i];
      }
      for (int32_t i = 0; i < n; ++i) total[begin + i] += sums[i];
    }
}

const qs5_kernels *QS5_NAME(qs5_kernels_, QS5_ISA)(void) {
  static const qs5_kernels kernels = {
      {
          [QS5_DENSE] = dense,
          [QS5_EMBEDDING] = embedding,
          [QS5_AFFINE] = affine,
          [QS5_LAYER_NORM] = layer_norm,
          [QS5_RECURRENCE] = recurrence,
          [QS5_SHIFT] = shift,
          [QS5_OUTPUT] = dense,
          [QS5_TABLE] = table,
          [QS5_QGELU] = qgelu,
          [QS5_HARD_SIGMOID] = hard_sigmoid,
          [QS5_MULTIPLY] = multiply,
          [QS5_ADD] = add,
      },
      accumulate,
  };
  return &kernels;
}
