/* AVX-512: the integer layer norm (SPEC.md 4.5), sixteen channels at a time. */
#include "lanes512.h"
#include "rows.h"

static __mmask16 lanes_left(int64_t left) { return left >= 16 ? QS5_ALL_LANES : (__mmask16)((1u << left) - 1); }

static int bits_of(uint32_t v) { return v ? 32 - __builtin_clz(v) : 0; }

/* floor(sqrt(v)) for v >= 2^30: a line is within 5 %, two steps of Newton's method within 1, and the rest is counted. */
static uint32_t square_root(uint32_t v) {
  uint32_t root = (v >> 17) + (v >> 19) + 23921;
  for (int i = 0; i < 2; ++i) root = (root + v / root) >> 1;
  while ((uint64_t)root * root > v) --root;
  while ((uint64_t)(root + 1) * (root + 1) <= v) ++root;
  return root;
}

/* d = H x - sum x into `to`, 0 beyond the channels; returns the largest |d|. */
static int32_t centre(const qs5_op *op, const void *x, int32_t *to) {
  const int64_t n = op->to->channels;
  __m512i sum = _mm512_setzero_si512(), top = sum;
  for (int64_t at = 0; at < n; at += 16) {
    const __m512i v = load_codes(op->x->type, x, at, lanes_left(n - at));
    sum = _mm512_add_epi32(sum, v);
    _mm512_storeu_si512(to + at, v);
  }
  const __m512i all = _mm512_set1_epi32(_mm512_reduce_add_epi32(sum)), H = _mm512_set1_epi32((int32_t)n);
  for (int64_t at = 0; at < n; at += 16) {
    const __m512i d = _mm512_maskz_sub_epi32(lanes_left(n - at), _mm512_mullo_epi32(load512(to + at), H), all);
    top = _mm512_max_epi32(top, _mm512_abs_epi32(d));
    _mm512_storeu_si512(to + at, d);
  }
  return _mm512_reduce_max_epi32(top);
}

/* c = shift(d, t) in place; returns the sum of c^2, which fits 32 unsigned bits. */
static uint32_t squares(int64_t n, int t, int32_t *d) {
  const __m512i half = _mm512_set1_epi32(t ? 1 << (t - 1) : 0);
  const __m128i by = _mm_cvtsi32_si128(t);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t at = 0; at < n; at += 16) {
    const __m512i c = _mm512_sra_epi32(_mm512_add_epi32(load512(d + at), half), by);
    sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(c, c));
    _mm512_storeu_si512(d + at, c);
  }
  return (uint32_t)_mm512_reduce_add_epi32(sum);
}

/* out = clip(affine(min(max(shift(c r, s), -32767), 32767))). */
static void scale(const qs5_op *op, const int32_t *c, int32_t r, int s, void *to) {
  const __m512i limit = _mm512_set1_epi32(INT16_MAX), least = _mm512_set1_epi32(-INT16_MAX);
  const __m512i by = _mm512_set1_epi32(r), half = _mm512_set1_epi32(1 << (s - 1));
  const __m128i right = _mm_cvtsi32_si128(s);
  for (int64_t at = 0; at < op->to->channels; at += 16) {
    const __m512i v = _mm512_add_epi32(_mm512_mullo_epi32(load512(c + at), by), half);
    const __m512i n = clamp512(_mm512_sra_epi32(v, right), least, limit);
    const __m512i affine = _mm512_add_epi32(_mm512_mullo_epi32(n, load512(op->M + at)), load512(op->offset + at));
    write_codes(op->to, to, at, _mm512_srav_epi32(affine, load512(op->shift + at)));
  }
}

static void layer_norm(const qs5_op *op, const qs5_block *block) {
  int32_t *v = block->wide[0];
  for (int64_t row = 0; row < block->rows; ++row) {
    const int32_t top = centre(op, qs5_row(block, op->x, op->in[0], row), v);
    const uint32_t V = squares(op->to->channels, (int)most(bits_of((uint32_t)top) - op->square_bits, 0), v);
    const int z = (32 - bits_of(V)) / 2;
    const int32_t r = V ? (int32_t)((1u << 31) / square_root(V << (2 * z))) : 0;
    scale(op, v, r, V ? 16 - z : 16, qs5_row_out(op, block, row));
  }
}

qs5_kernel qs5_norm_vnni(const qs5_op *op) { return op->kind == QS5_LAYER_NORM ? layer_norm : NULL; }
