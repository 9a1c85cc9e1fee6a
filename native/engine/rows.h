/* Rows of codes as wider numbers, and the functions of SPEC.md, in plain C. Included by each file that is compiled for one instruction set. */
#ifndef QS5_ROWS_H
#define QS5_ROWS_H

#include "plan.h"

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t clamp(int32_t v, int32_t low, int32_t high) { return least(most(v, low), high); }

/* requantize and shift of SPEC.md, section 3. */
static inline int32_t rescale(int32_t acc, int32_t M, int32_t shift, int32_t left) {
  const int32_t limit = INT32_MAX >> left;
  acc = clamp(acc, -limit, limit) * (1 << left);
  const int32_t low = (int32_t)((((uint32_t)acc & 0xFFFFu) * (uint32_t)M) >> 16);
  return ((acc >> 16) * M + low + (1 << (shift - 17))) >> (shift - 16);
}

/* shift(x, s) for one s: to the right with a half, or to the left. */
static inline int32_t shift_by(int32_t x, int32_t s) { return s > 0 ? (x + (1 << (s - 1))) >> s : x * (1 << -s); }

#define QS5_WIDEN(type)                                                                                                \
  do {                                                                                                                 \
    const type *from = row;                                                                                            \
    for (int32_t i = 0; i < n; ++i) out[i] = from[i];                                                                  \
  } while (0)

static inline void widen(const qs5_info *info, const void *row, int32_t n, int32_t *restrict out) {
  switch (info->type) {
  case QS5_I8: QS5_WIDEN(int8_t); break;
  case QS5_U8: QS5_WIDEN(uint8_t); break;
  case QS5_I16: QS5_WIDEN(int16_t); break;
  default: QS5_WIDEN(uint16_t);
  }
}

/* Codes as they enter a product of 16-bit numbers: unsigned 16-bit ones less 2^15, and the bias makes up for it. */
static inline void widen16(const qs5_info *info, const void *row, int32_t n, int16_t *restrict out) {
  const uint16_t *halves = row;
  switch (info->type) {
  case QS5_I8: QS5_WIDEN(int8_t); break;
  case QS5_U8: QS5_WIDEN(uint8_t); break;
  case QS5_I16: QS5_WIDEN(int16_t); break;
  default:
    for (int32_t i = 0; i < n; ++i) out[i] = (int16_t)(halves[i] - (1 << 15));
  }
}

/* The inputs of a product for one row: the signals it reads, one after the other. */
static inline void inputs16(const qs5_op *op, const qs5_block *block, int64_t row, int16_t *to) {
  widen16(op->x, qs5_row(block, op->x, op->in[0], row), op->x->channels, to);
  if (op->inputs > op->x->channels)
    widen16(op->y, qs5_row(block, op->y, op->in[1], row), op->y->channels, to + op->x->channels);
}

#endif
