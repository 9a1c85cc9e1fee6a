/* AVX-512 VNNI kernels. Kernels of sixteen lanes write whole vectors: rows are padded, and padding is never a code. */
#include "rows.h"
#include "vector512.h"

/* -- products: out = requantize(W x + bias [+ direct]) ------------------------------------------------------------ */

enum { MOST_ROWS = 8, MOST_VECTORS = 8 };

/* Codes as unsigned bytes: signed ones plus 128, and the bias makes up for it. */
static void inputs8(const qs5_info *info, const void *row, int64_t n, uint8_t *to) {
  const __m512i flip = _mm512_set1_epi8(info->type == QS5_I8 ? (char)-128 : 0);
  for (int64_t i = 0; i < n; i += 64) _mm512_storeu_si512(to + i, _mm512_xor_si512(load512((const uint8_t *)row + i), flip));
}

/* Where row 0 of the inputs is, how far it is to the next, and what makes signed bytes unsigned. */
typedef struct {
  const uint8_t *at;
  int64_t stride;
  int flip;
} rows_in;

static rows_in prepare8(const qs5_op *op, const qs5_block *block) {
  const int two = op->inputs > op->x->channels;
  /* A single row is flipped on the way into the product: no pass over memory. */
  if (!two && (op->x->type == QS5_U8 || block->rows == 1))
    return (rows_in){block->at[op->in[0]], op->x->stride, op->x->type == QS5_I8};
  uint8_t *to = block->inputs;
  const int64_t stride = block->wide_stride;
  for (int64_t row = 0; row < block->rows; ++row, to += stride) {
    inputs8(op->x, qs5_row(block, op->x, op->in[0], row), op->x->channels, to);
    if (two) inputs8(op->y, qs5_row(block, op->y, op->in[1], row), op->y->channels, to + op->x->channels);
  }
  return (rows_in){block->inputs, stride, 0};
}

static rows_in prepare16(const qs5_op *op, const qs5_block *block) {
  const int64_t stride = block->wide_stride;
  for (int64_t row = 0; row < block->rows; ++row) inputs16(op, block, row, (int16_t *)block->inputs + row * stride);
  return (rows_in){block->inputs, stride * (int64_t)sizeof(int16_t), 0};
}

QS5_INLINE __m512i broadcast(const uint8_t *four_bytes) {
  int32_t word;
  __builtin_memcpy(&word, four_bytes, sizeof word);
  return _mm512_set1_epi32(word);
}

/* direct = clip(requantize(u D, D_M, D_shift)): one product with D D_M where u has 8 bits. */
QS5_INLINE __m512i direct(const qs5_op *op, const void *u_row, int64_t at) {
  const __m512i u = load_codes(op->u->type, u_row, at, QS5_ALL_LANES), limit = _mm512_set1_epi32(1 << 24);
  __m512i v;
  if (op->DM) {
    const __m512i DM = load512(op->DM + at);
    v = round512(_mm512_mullo_epi32(u, _mm512_srai_epi32(DM, 8)), _mm512_and_si512(DM, _mm512_set1_epi32(0xFF)));
  } else {
    v = raise512(_mm512_mullo_epi32(u, load512(op->D + at)), load512(op->direct.left + at));
    v = rescale512(v, factors(load512(op->direct.packed + at)));
  }
  return clamp512(v, _mm512_sub_epi32(_mm512_setzero_si512(), limit), limit);
}

/* Writes a tile of sums [row][vector]. Through memory, so that this is compiled once. */
static void finish(const qs5_op *op, const qs5_block *block, int64_t row, int rows, int64_t vector, int vectors,
                   const __m512i *sums) {
  for (int c = 0; c < vectors; ++c) {
    const int64_t at = 16 * (vector + c);
    const qs5_factors f = factors(load512(op->scale.packed + at));
    for (int r = 0; r < rows; ++r) {
      __m512i v = sums[r * vectors + c];
      if (op->kind == QS5_OUTPUT) v = _mm512_add_epi32(v, direct(op, qs5_row(block, op->u, op->in[2], row + r), at));
      if (op->scale.raised) v = raise512(v, load512(op->scale.left + at));
      write_codes(op->to, qs5_row_out(op, block, row + r), at, rescale512(v, f));
    }
  }
}

/* `rows` rows by `vectors` vectors of outputs; both are constants where this is inlined, and all loops over them are
 * unrolled: only so do the sums stay in registers. */
QS5_INLINE void tile(const qs5_op *op, const qs5_block *block, rows_in x, int bytes, int64_t row, int rows, int64_t vector,
                     int vectors) {
  const int64_t groups = op->groups; /* of four bytes of input and 64 of weights: 4 x 8 or 2 x 16 bits a lane */
  const int64_t step = (op->outputs + 15) / 16 * 64;
  const uint8_t *w = (const uint8_t *)op->weight + vector * 64, *in = x.at + row * x.stride;
  const __m512i flip = _mm512_set1_epi8(x.flip ? (char)-128 : 0);
  __m512i sums[MOST_ROWS * MOST_VECTORS], kept[MOST_ROWS * MOST_VECTORS];
#pragma GCC unroll 8
  for (int c = 0; c < vectors; ++c)
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) sums[r * vectors + c] = load512(op->bias + 16 * (vector + c));
  for (int64_t g = 0; g < groups; ++g, w += step, in += 4) {
    __m512i weights[MOST_VECTORS];
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) weights[c] = load512(w + c * 64);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      __m512i four = broadcast(in + r * x.stride);
      if (bytes && rows == 1) four = _mm512_xor_si512(four, flip);
#pragma GCC unroll 8
      for (int c = 0; c < vectors; ++c)
        sums[r * vectors + c] = bytes ? _mm512_dpbusd_epi32(sums[r * vectors + c], four, weights[c])
                                      : _mm512_dpwssd_epi32(sums[r * vectors + c], four, weights[c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) kept[r * vectors + c] = sums[r * vectors + c];
  finish(op, block, row, rows, vector, vectors, kept);
}

/* All rows of the block for `vectors` vectors; `most` rows at a time keep the sums in registers. */
QS5_INLINE void columns(const qs5_op *op, const qs5_block *block, rows_in x, int bytes, int64_t vector, int vectors, int most) {
  int64_t row = 0;
  for (; row + most <= block->rows; row += most) tile(op, block, x, bytes, row, most, vector, vectors);
  for (; most > 2 && row + 2 <= block->rows; row += 2) tile(op, block, x, bytes, row, 2, vector, vectors);
  for (; row < block->rows; ++row) tile(op, block, x, bytes, row, 1, vector, vectors);
}

QS5_INLINE void product(const qs5_op *op, const qs5_block *block, rows_in x, int bytes) {
  const int64_t vectors = (op->outputs + 15) / 16;
  int64_t at = 0;
  if (block->rows == 1)
    for (; at + 8 <= vectors; at += 8) tile(op, block, x, bytes, 0, 1, at, 8);
  if (block->rows == 1)
    for (; at + 6 <= vectors; at += 6) tile(op, block, x, bytes, 0, 1, at, 6);
  for (; at + 4 <= vectors && (vectors - at) % 3; at += 4) columns(op, block, x, bytes, at, 4, 6);
  for (; at + 3 <= vectors; at += 3) columns(op, block, x, bytes, at, 3, 8);
  for (; at < vectors; ++at) columns(op, block, x, bytes, at, 1, 8);
}

static void dense8(const qs5_op *op, const qs5_block *block) { product(op, block, prepare8(op, block), 1); }
static void dense16(const qs5_op *op, const qs5_block *block) { product(op, block, prepare16(op, block), 0); }

/* -- the recurrence ------------------------------------------------------------------------------------------------ */

/* Up to MODE_VECTORS vectors of 16 modes go through all steps in registers, as 16-bit pairs (re, im). */
enum { MODE_VECTORS = 4 };

typedef struct {
  __m512i half, low, high;
  qs5_factors f;
  __m512i left;
  __m128i power;
} rotation;

static rotation rotation_of(const qs5_op *op) {
  rotation a;
  const int power = op->numbers[0] == 1;
  a.low = _mm512_set1_epi32(op->to->low);
  a.high = _mm512_set1_epi32(op->to->high);
  a.half = _mm512_set1_epi32(power ? 1 << (op->numbers[1] - 1) : 0);
  a.power = _mm_cvtsi32_si128(op->numbers[1]);
  a.left = _mm512_set1_epi32(power ? 0 : *op->scale.left);
  a.f = factors(_mm512_set1_epi32(power ? 0 : *op->scale.packed));
  return a;
}

QS5_INLINE __m512i advance(const rotation *a, int power, __m512i acc, __m512i x) {
  const __m512i rotated = power ? _mm512_sra_epi32(_mm512_add_epi32(acc, a->half), a->power)
                                : rescale512(raise512(acc, a->left), a->f);
  return clamp512(_mm512_add_epi32(rotated, x), a->low, a->high);
}

QS5_INLINE __m512i pairs(__m512i re, __m512i im) {
  return _mm512_mask_blend_epi16(0xAAAAAAAA, re, _mm512_slli_epi32(im, 16));
}

/* Modes first .. first + 16 vectors - 1 of one sequence; `last` masks those of the last vector. */
QS5_INLINE void modes(const qs5_op *op, const qs5_block *block, int64_t sequence, int64_t first, int vectors, __mmask16 last,
                      int power, qs5_type type) {
  const rotation a = rotation_of(op);
  const int64_t n = op->to->channels / 2, padded = (n + QS5_PAD - 1) / QS5_PAD * QS5_PAD;
  const int size = type == QS5_I8 ? 1 : 2;
  int16_t *state = op->numbers[2] ? NULL : qs5_state(op, block, sequence);
  __m512i q[MODE_VECTORS], to_re[MODE_VECTORS], to_im[MODE_VECTORS];
  for (int v = 0; v < vectors; ++v) {
    const int64_t at = first + 16 * v;
    const __mmask16 mask = v + 1 == vectors ? last : QS5_ALL_LANES;
    to_re[v] = load512(op->rotation + at);
    to_im[v] = load512(op->rotation + padded + at);
    q[v] = state ? pairs(load_codes(QS5_I16, state, at, mask), load_codes(QS5_I16, state, n + at, mask))
                 : _mm512_setzero_si512();
  }
  for (int64_t k = 0; k < block->steps; ++k) {
    const int64_t row = sequence * block->steps + (state ? k : block->steps - 1 - k);
    const void *x = qs5_row(block, op->x, op->in[0], row);
    void *to = qs5_row_out(op, block, row);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const int64_t at = first + 16 * v;
      const __mmask16 mask = v + 1 == vectors ? last : QS5_ALL_LANES;
      const __m512i re = advance(&a, power, _mm512_madd_epi16(q[v], to_re[v]), load_codes(type, x, at, mask));
      const __m512i im = advance(&a, power, _mm512_madd_epi16(q[v], to_im[v]), load_codes(type, x, n + at, mask));
      store_codes(size, to, at, re, mask);
      store_codes(size, to, n + at, im, mask);
      q[v] = pairs(re, im);
    }
  }
  for (int v = 0; state && v < vectors; ++v) {
    const int64_t at = first + 16 * v;
    const __mmask16 mask = v + 1 == vectors ? last : QS5_ALL_LANES;
    store_codes(2, state, at, q[v], mask);
    store_codes(2, state, n + at, _mm512_srai_epi32(q[v], 16), mask);
  }
}

QS5_INLINE void recurrence(const qs5_op *op, const qs5_block *block, int power, qs5_type type) {
  const int64_t n = op->to->channels / 2, whole = n / 16;
  const __mmask16 rest = (__mmask16)((1u << (n % 16)) - 1u);
  for (int64_t s = 0; s < block->sequences; ++s) {
    int64_t v = 0;
    for (; v + 4 <= whole; v += 4) modes(op, block, s, 16 * v, 4, QS5_ALL_LANES, power, type);
    for (; v < whole; ++v) modes(op, block, s, 16 * v, 1, QS5_ALL_LANES, power, type);
    if (rest) modes(op, block, s, 16 * whole, 1, rest, power, type);
  }
}

static void power16(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 1, QS5_I16); }
static void power8(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 1, QS5_I8); }
static void multiplier16(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 0, QS5_I16); }
static void multiplier8(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 0, QS5_I8); }

static qs5_kernel recurrence_of(const qs5_op *op) {
  if (op->numbers[0] == 1) return op->to->size == 2 ? power16 : power8;
  return op->to->size == 2 ? multiplier16 : multiplier8;
}

/* -- ops of one step, sixteen channels at a time ------------------------------------------------------------------- */

QS5_INLINE void affine(const qs5_op *op, const qs5_block *block, qs5_type type) {
  for (int64_t at = 0; at < op->to->channels; at += 16) {
    const __m512i M = load512(op->M + at), offset = load512(op->offset + at), shift = load512(op->shift + at);
    for (int64_t row = 0; row < block->rows; ++row) {
      const __m512i x = load_codes(type, qs5_row(block, op->x, op->in[0], row), at, QS5_ALL_LANES);
      const __m512i v = _mm512_srav_epi32(_mm512_add_epi32(_mm512_mullo_epi32(x, M), offset), shift);
      write_codes(op->to, qs5_row_out(op, block, row), at, v);
    }
  }
}

static void affine_any(const qs5_op *op, const qs5_block *block) { affine(op, block, op->x->type); }
static void affine_i16(const qs5_op *op, const qs5_block *block) { affine(op, block, QS5_I16); }

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

/* -- ops of one step, on narrow lanes ------------------------------------------------------------------------------ */

/* 256 bytes in four registers: the lower seven bits look up in two of them, the upper one selects. */
static void table(const qs5_op *op, const qs5_block *block) {
  const uint8_t *t = op->bytes_table;
  const __m512i t0 = load512(t), t1 = load512(t + 64), t2 = load512(t + 128), t3 = load512(t + 192);
  for (int64_t row = 0; row < block->rows; ++row) {
    const uint8_t *x = qs5_row(block, op->x, op->in[0], row);
    uint8_t *to = qs5_row_out(op, block, row);
    for (int64_t at = 0; at < op->to->channels; at += 64) {
      const __m512i i = load512(x + at);
      const __m512i lower = _mm512_permutex2var_epi8(t0, i, t1), upper = _mm512_permutex2var_epi8(t2, i, t3);
      _mm512_storeu_si512(to + at, _mm512_mask_blend_epi8(_mm512_movepi8_mask(i), lower, upper));
    }
  }
}

/* (x + 2^(s-1)) >> s in 16 bits without overflow: (x >> s) + bit s - 1 of x. s >= 1. */
QS5_INLINE __m512i round16(__m512i x, __m128i s, __m128i s_less_1) {
  const __m512i bit = _mm512_and_si512(_mm512_srl_epi16(x, s_less_1), _mm512_set1_epi16(1));
  return _mm512_add_epi16(_mm512_sra_epi16(x, s), bit);
}

QS5_INLINE __m512i clamp16(const qs5_info *to, __m512i v) {
  const __m512i low = _mm512_set1_epi16((int16_t)to->low), high = _mm512_set1_epi16((int16_t)to->high);
  return _mm512_min_epi16(_mm512_max_epi16(v, low), high);
}

/* x signed, y unsigned, 8 bits each: a product of at most 127 x 255 < 2^15. */
static void multiply_narrow(const qs5_op *op, const qs5_block *block) {
  const __m128i s = _mm_cvtsi32_si128(op->numbers[0]), s_less_1 = _mm_cvtsi32_si128(op->numbers[0] - 1);
  for (int64_t row = 0; row < block->rows; ++row) {
    const uint8_t *x = qs5_row(block, op->x, op->in[0], row), *y = qs5_row(block, op->y, op->in[1], row);
    int16_t *to = qs5_row_out(op, block, row);
    for (int64_t at = 0; at < op->to->channels; at += 32) {
      const __m512i a = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(x + at)));
      const __m512i b = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(y + at)));
      _mm512_storeu_si512(to + at, clamp16(op->to, round16(_mm512_mullo_epi16(a, b), s, s_less_1)));
    }
  }
}

/* int16 + int16: a saturating sum stays beyond every narrower format that the sum is beyond. */
static void add_narrow(const qs5_op *op, const qs5_block *block) {
  const int32_t by = op->numbers[0];
  const __m128i s = _mm_cvtsi32_si128(by), s_less_1 = _mm_cvtsi32_si128(by - 1);
  for (int64_t row = 0; row < block->rows; ++row) {
    const int16_t *x = qs5_row(block, op->x, op->in[0], row), *y = qs5_row(block, op->y, op->in[1], row);
    int16_t *to = qs5_row_out(op, block, row);
    for (int64_t at = 0; at < op->to->channels; at += 32) {
      const __m512i b = by ? round16(load512(y + at), s, s_less_1) : load512(y + at);
      _mm512_storeu_si512(to + at, clamp16(op->to, _mm512_adds_epi16(load512(x + at), b)));
    }
  }
}

/* int16 to int8 by shifts to the right, one a channel. */
static void shift_narrow(const qs5_op *op, const qs5_block *block) {
  const __m256i low = _mm256_set1_epi8((char)op->to->low), high = _mm256_set1_epi8((char)op->to->high);
  const __m512i one = _mm512_set1_epi16(1);
  for (int64_t at = 0; at < op->to->channels; at += 32) {
    const __m512i s = load512(op->right16 + at), s_less_1 = _mm512_sub_epi16(s, one);
    for (int64_t row = 0; row < block->rows; ++row) {
      const __m512i x = load512((const int16_t *)qs5_row(block, op->x, op->in[0], row) + at);
      const __m512i bit = _mm512_and_si512(_mm512_srlv_epi16(x, s_less_1), one);
      const __m256i v = _mm512_cvtsepi16_epi8(_mm512_add_epi16(_mm512_srav_epi16(x, s), bit));
      int8_t *to = (int8_t *)qs5_row_out(op, block, row) + at;
      _mm256_storeu_si256((__m256i *)(void *)to, _mm256_min_epi8(_mm256_max_epi8(v, low), high));
    }
  }
}

/* -- which kernel -------------------------------------------------------------------------------------------------- */

static qs5_kernel multiply_of(const qs5_op *op) {
  const int narrow = op->x->type == QS5_I8 && op->y->type == QS5_U8 && op->to->type == QS5_I16;
  return narrow && op->numbers[0] >= 1 && op->numbers[0] <= 15 ? multiply_narrow : multiply;
}

static qs5_kernel add_of(const qs5_op *op) {
  const int narrow = op->x->type == QS5_I16 && op->y->type == QS5_I16 && op->to->type == QS5_I16;
  return narrow && op->numbers[0] >= 0 && op->numbers[0] <= 15 ? add_narrow : add;
}

qs5_kernel qs5_fast_vnni(const qs5_op *op) {
  switch (op->kind) {
  case QS5_DENSE:
  case QS5_OUTPUT: return op->bytes ? dense8 : dense16;
  case QS5_RECURRENCE: return recurrence_of(op);
  case QS5_AFFINE: return op->x->type == QS5_I16 ? affine_i16 : affine_any;
  case QS5_SHIFT: return op->right16 && op->x->type == QS5_I16 && op->to->type == QS5_I8 ? shift_narrow : shift;
  case QS5_TABLE: return op->to->size == 1 ? table : NULL;
  case QS5_MULTIPLY: return multiply_of(op);
  case QS5_ADD: return add_of(op);
  default: return NULL;
  }
}
