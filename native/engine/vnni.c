/* AVX-512 kernels of the ops of one step. They write whole vectors: rows are padded, and padding is never a code. */
#include "lanes512.h"

/* -- ops of one step, sixteen channels at a time ------------------------------------------------------------------- */

static void affine(const qs5_op *op, const qs5_block *block) {
  for (int64_t at = 0; at < op->to->channels; at += 16) {
    const __m512i M = load512(op->M + at), offset = load512(op->offset + at), shift = load512(op->shift + at);
    for (int64_t row = 0; row < block->rows; ++row) {
      const __m512i x = load_codes(op->x->type, qs5_row(block, op->x, op->in[0], row), at, QS5_ALL_LANES);
      const __m512i v = _mm512_srav_epi32(_mm512_add_epi32(_mm512_mullo_epi32(x, M), offset), shift);
      write_codes(op->to, qs5_row_out(op, block, row), at, v);
    }
  }
}

static void shift(const qs5_op *op, const qs5_block *block) {
  for (int64_t row = 0; row < block->rows; ++row) {
    const void *x = qs5_row(block, op->x, op->in[0], row);
    void *to = qs5_row_out(op, block, row);
    for (int64_t at = 0; at < op->to->channels; at += 16) {
      const __m512i v = _mm512_sllv_epi32(load_codes(op->x->type, x, at, QS5_ALL_LANES), load512(op->left + at));
      write_codes(op->to, to, at, _mm512_srav_epi32(_mm512_add_epi32(v, load512(op->half + at)), load512(op->right + at)));
    }
  }
}

/* shift_by(v, s) of every lane. */
QS5_INLINE __m512i shift512(__m512i v, int32_t s) {
  const __m512i half = _mm512_set1_epi32(s > 0 ? 1 << (s - 1) : 0);
  const __m128i left = _mm_cvtsi32_si128(s < 0 ? -s : 0), right = _mm_cvtsi32_si128(s > 0 ? s : 0);
  return _mm512_sra_epi32(_mm512_add_epi32(_mm512_sll_epi32(v, left), half), right);
}

static void multiply(const qs5_op *op, const qs5_block *block) {
  for (int64_t row = 0; row < block->rows; ++row) {
    const void *x = qs5_row(block, op->x, op->in[0], row), *y = qs5_row(block, op->y, op->in[1], row);
    void *to = qs5_row_out(op, block, row);
    for (int64_t at = 0; at < op->to->channels; at += 16) {
      const __m512i a = load_codes(op->x->type, x, at, QS5_ALL_LANES), b = load_codes(op->y->type, y, at, QS5_ALL_LANES);
      write_codes(op->to, to, at, shift512(_mm512_mullo_epi32(a, b), op->numbers[0]));
    }
  }
}

static void add(const qs5_op *op, const qs5_block *block) {
  for (int64_t row = 0; row < block->rows; ++row) {
    const void *x = qs5_row(block, op->x, op->in[0], row), *y = qs5_row(block, op->y, op->in[1], row);
    void *to = qs5_row_out(op, block, row);
    for (int64_t at = 0; at < op->to->channels; at += 16) {
      const __m512i a = load_codes(op->x->type, x, at, QS5_ALL_LANES), b = load_codes(op->y->type, y, at, QS5_ALL_LANES);
      write_codes(op->to, to, at, _mm512_add_epi32(a, shift512(b, op->numbers[0])));
    }
  }
}

/* -- the same on 16-bit lanes, where fuse.c says that they fit ----------------------------------------------------- */

/* Any op that looks up: 64 bytes at a time. */
static void table(const qs5_op *op, const qs5_block *block) {
  const qs5_look_up t = look_up_of(op);
  for (int64_t row = 0; row < block->rows; ++row) {
    const uint8_t *x = qs5_row(block, op->x, op->in[0], row);
    uint8_t *to = qs5_row_out(op, block, row);
    for (int64_t at = 0; at < op->to->channels; at += 64) _mm512_storeu_si512(to + at, look_up_bytes(&t, load512(x + at)));
  }
}

QS5_INLINE __m512i input_words(const qs5_op *op, const qs5_block *block, int input, int64_t row, int64_t at) {
  const qs5_info *info = input ? op->y : op->x;
  return load_words(info->type, qs5_row(block, info, op->in[input], row), at);
}

static void multiply_narrow(const qs5_op *op, const qs5_block *block) {
  const qs5_shifted by = shifted_of(op);
  for (int64_t row = 0; row < block->rows; ++row)
    for (int64_t at = 0; at < op->to->channels; at += 32) {
      const __m512i x = input_words(op, block, 0, row, at), y = input_words(op, block, 1, row, at);
      store_words(by.to.size, qs5_row_out(op, block, row), at, multiply_words(&by, x, y));
    }
}

static void add_narrow(const qs5_op *op, const qs5_block *block) {
  const qs5_shifted by = shifted_of(op);
  for (int64_t row = 0; row < block->rows; ++row)
    for (int64_t at = 0; at < op->to->channels; at += 32) {
      const __m512i x = input_words(op, block, 0, row, at), y = input_words(op, block, 1, row, at);
      store_words(by.to.size, qs5_row_out(op, block, row), at, add_words(&by, x, y));
    }
}

static void affine_narrow(const qs5_op *op, const qs5_block *block) {
  for (int64_t at = 0; at < op->to->channels; at += 32) {
    const qs5_affine a = affine_of(op, at);
    for (int64_t row = 0; row < block->rows; ++row) {
      const __m512i x = input_words(op, block, 0, row, at);
      store_words(a.to.size, qs5_row_out(op, block, row), at, affine_words(&a, x));
    }
  }
}

/* int16 to int8 by shifts to the right, one a channel. */
static void shift_narrow(const qs5_op *op, const qs5_block *block) {
  const qs5_range to = range_of(op->to);
  for (int64_t at = 0; at < op->to->channels; at += 32) {
    const __m512i by = load512(op->right16 + at);
    for (int64_t row = 0; row < block->rows; ++row) {
      const __m512i v = _mm512_mulhrs_epi16(input_words(op, block, 0, row, at), by);
      store_words(1, qs5_row_out(op, block, row), at, clamp_words(to, v));
    }
  }
}

/* -- which kernel -------------------------------------------------------------------------------------------------- */

static qs5_kernel one_step(const qs5_op *op) {
  const int narrow = qs5_fits_words(op);
  switch (op->kind) {
  case QS5_AFFINE: return narrow ? affine_narrow : affine;
  case QS5_SHIFT: return narrow ? shift_narrow : shift;
  case QS5_TABLE:
  case QS5_QGELU:
  case QS5_HARD_SIGMOID: return narrow ? table : NULL;
  case QS5_MULTIPLY: return narrow ? multiply_narrow : multiply;
  case QS5_ADD: return narrow ? add_narrow : add;
  default: return NULL;
  }
}

qs5_kernel qs5_fast_vnni(const qs5_op *op) {
  switch (op->kind) {
  case QS5_DENSE:
  case QS5_OUTPUT: return qs5_product_vnni(op);
  case QS5_RECURRENCE: return qs5_recurrence_vnni(op);
  case QS5_LAYER_NORM: return qs5_norm_vnni(op);
  default: return one_step(op);
  }
}
