/* AVX-512: the recurrence, with the shift to what C reads done before the state leaves the registers. */
#include "lanes512.h"

/* Up to CHUNKS times 32 modes go through all steps in registers, as 16-bit pairs (re, im). */
enum { CHUNKS = 2 };

typedef struct {
  __m512i half;
  qs5_factors f;
  __m512i left;
  __m128i power;
} rotation;

static rotation rotation_of(const qs5_op *op) {
  rotation a;
  const int power = op->numbers[0] == 1;
  a.half = _mm512_set1_epi32(power ? 1 << (op->numbers[1] - 1) : 0);
  a.power = _mm_cvtsi32_si128(op->numbers[1]);
  a.left = _mm512_set1_epi32(power ? 0 : *op->scale.left);
  a.f = factors(_mm512_set1_epi32(power ? 0 : *op->scale.packed));
  return a;
}

/* One part of sixteen modes: rescale(A q) + x. */
QS5_INLINE __m512i advance(const rotation *a, int power, __m512i q, __m512i to, __m512i x) {
  const __m512i v = power ? _mm512_sra_epi32(_mm512_dpwssd_epi32(a->half, q, to), a->power)
                          : rescale512(raise512(_mm512_madd_epi16(q, to), a->left), a->f);
  return _mm512_add_epi32(v, x);
}

/* Where 32 modes begin, and which of them there are. */
typedef struct {
  int64_t at;
  __mmask32 mask;
  int whole;
} chunk;

QS5_INLINE __m512i load_some(qs5_type type, const void *row, int64_t at, chunk c) {
  if (c.whole) return load_words(type, row, at);
  if (type == QS5_I16) return _mm512_maskz_loadu_epi16(c.mask, (const int16_t *)row + at);
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(c.mask, (const int8_t *)row + at));
}

QS5_INLINE void store_some(int size, void *row, int64_t at, __m512i v, chunk c) {
  int8_t *bytes = (int8_t *)row + at;
  int16_t *halves = (int16_t *)row + at;
  if (size == 1 && c.whole) _mm256_storeu_si256((__m256i *)(void *)bytes, _mm512_cvtepi16_epi8(v));
  else if (size == 1) _mm256_mask_storeu_epi8(bytes, c.mask, _mm512_cvtepi16_epi8(v));
  else if (c.whole) _mm512_storeu_si512(halves, v);
  else _mm512_mask_storeu_epi16(halves, c.mask, v);
}

/* Where the states of one block go, and what the shift behind makes of them; at: NULL if nobody reads it. */
typedef struct {
  unsigned char *at, *shifted_at;
  int64_t stride, shifted_stride;
  const int16_t *right16;
  qs5_range shifted;
} places;

static places places_of(const qs5_op *op, const qs5_block *block) {
  const qs5_op *shift = op->tail.shift;
  places to = {op->kept ? qs5_row_out(op, block, 0) : NULL, NULL, op->to->stride, 0, NULL, range_of(op->to)};
  if (shift) {
    to.shifted_at = qs5_row_out(shift, block, 0);
    to.shifted_stride = shift->to->stride;
    to.right16 = shift->right16;
    to.shifted = range_of(shift->to);
  }
  return to;
}

/* Writes one part of the state. */
QS5_INLINE void put(const places *to, int64_t row, int64_t at, __m512i q, chunk c, qs5_type type) {
  if (to->shifted_at) {
    const __m512i v = clamp_words(to->shifted, _mm512_mulhrs_epi16(q, load512(to->right16 + at)));
    store_some(1, to->shifted_at + row * to->shifted_stride, at, v, c);
  }
  if (to->at) store_some(type == QS5_I8 ? 1 : 2, to->at + row * to->stride, at, q, c);
}

/* `chunks` chunks of one sequence. */
QS5_INLINE void modes(const qs5_op *op, const qs5_block *block, int64_t sequence, chunk first, int chunks, int power,
                      qs5_type type) {
  const rotation a = rotation_of(op);
  const int64_t n = op->to->channels / 2, padded = (n + QS5_PAD - 1) / QS5_PAD * QS5_PAD;
  const places to = places_of(op, block);
  const qs5_range range = range_of(op->to);
  const unsigned char *in_rows = qs5_row(block, op->x, op->in[0], 0);
  const int64_t in_stride = op->x->stride, steps = block->steps;
  int16_t *state = op->numbers[2] ? NULL : qs5_state(op, block, sequence);
  __m512i q[2 * CHUNKS], to_re[2 * CHUNKS], to_im[2 * CHUNKS];
  for (int v = 0; v < chunks; ++v) {
    const chunk c = {first.at + 32 * v, first.mask, first.whole};
    const __m512i zero = _mm512_setzero_si512();
    const __m512i re = state ? load_some(QS5_I16, state, c.at, c) : zero;
    const __m512i im = state ? load_some(QS5_I16, state, n + c.at, c) : zero;
    q[2 * v] = _mm512_unpacklo_epi16(re, im);
    q[2 * v + 1] = _mm512_unpackhi_epi16(re, im);
    for (int i = 0; i < 2; ++i) {
      to_re[2 * v + i] = load512(op->rotation + c.at + 16 * i);
      to_im[2 * v + i] = load512(op->rotation + padded + c.at + 16 * i);
    }
  }
  for (int64_t k = 0; k < steps; ++k) {
    const int64_t row = sequence * steps + (state ? k : steps - 1 - k);
    const unsigned char *x = in_rows + row * in_stride;
#pragma GCC unroll 2
    for (int v = 0; v < chunks; ++v) {
      const chunk c = {first.at + 32 * v, first.mask, first.whole};
      __m512i part[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const __m512i *by = i ? to_im : to_re, in = load_some(type, x, i * n + c.at, c), sign = _mm512_srai_epi16(in, 15);
        const __m512i lower = advance(&a, power, q[2 * v], by[2 * v], _mm512_unpacklo_epi16(in, sign));
        const __m512i upper = advance(&a, power, q[2 * v + 1], by[2 * v + 1], _mm512_unpackhi_epi16(in, sign));
        part[i] = clamp_words(range, _mm512_packs_epi32(lower, upper));
        put(&to, row, i * n + c.at, part[i], c, type);
      }
      q[2 * v] = _mm512_unpacklo_epi16(part[0], part[1]);
      q[2 * v + 1] = _mm512_unpackhi_epi16(part[0], part[1]);
    }
  }
  for (int v = 0; state && v < chunks; ++v) {
    const chunk c = {first.at + 32 * v, first.mask, first.whole};
    const __m512i lower = q[2 * v], upper = q[2 * v + 1];
    const __m512i re = _mm512_packs_epi32(_mm512_srai_epi32(_mm512_slli_epi32(lower, 16), 16),
                                          _mm512_srai_epi32(_mm512_slli_epi32(upper, 16), 16));
    store_some(2, state, c.at, re, c);
    store_some(2, state, n + c.at, _mm512_packs_epi32(_mm512_srai_epi32(lower, 16), _mm512_srai_epi32(upper, 16)), c);
  }
}

QS5_INLINE void recurrence(const qs5_op *op, const qs5_block *block, int power, qs5_type type) {
  const int64_t n = op->to->channels / 2, end = n / 32 * 32;
  const __mmask32 rest = (__mmask32)(((uint64_t)1 << (n % 32)) - 1);
  for (int64_t s = 0; s < block->sequences; ++s) {
    int64_t at = 0;
    for (; at + 32 * CHUNKS <= end; at += 32 * CHUNKS) modes(op, block, s, (chunk){at, 0, 1}, CHUNKS, power, type);
    for (; at < end; at += 32) modes(op, block, s, (chunk){at, 0, 1}, 1, power, type);
    if (rest) modes(op, block, s, (chunk){at, rest, 0}, 1, power, type);
  }
}

static void power16(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 1, QS5_I16); }
static void power8(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 1, QS5_I8); }
static void multiplier16(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 0, QS5_I16); }
static void multiplier8(const qs5_op *op, const qs5_block *block) { recurrence(op, block, 0, QS5_I8); }

qs5_kernel qs5_recurrence_vnni(const qs5_op *op) {
  if (op->numbers[0] == 1) return op->to->size == 2 ? power16 : power8;
  return op->to->size == 2 ? multiplier16 : multiplier8;
}
