/* Thirty-two codes as 16-bit lanes ("words"), and the ops of one step on them. AVX-512.
 *
 * 32-bit intermediates of 32 channels are two vectors in pairs (qs5_place_in_pairs): unpacking words gives that order and
 * packing undoes it. Which ops may run so is decided in fuse.c. */
#ifndef QS5_LANES512_H
#define QS5_LANES512_H

#include "vector512.h"

QS5_INLINE __m256i load256(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }

/* Not for 16 unsigned bits. */
QS5_INLINE __m512i load_words(qs5_type type, const void *row, int64_t at) {
  if (type == QS5_I16) return load512((const int16_t *)row + at);
  const __m256i bytes = load256((const int8_t *)row + at);
  return type == QS5_I8 ? _mm512_cvtepi8_epi16(bytes) : _mm512_cvtepu8_epi16(bytes);
}

/* What an op's result has to be: a copy in registers, since compilers must assume that storing codes changes all else. */
typedef struct {
  __m512i low, high;
  int size, unsigned16;
} qs5_range;

QS5_INLINE qs5_range range_of(const qs5_info *to) {
  const qs5_range range = {_mm512_set1_epi16((int16_t)to->low), _mm512_set1_epi16((int16_t)to->high), to->size,
                           to->type == QS5_U16};
  return range;
}

QS5_INLINE __m512i clamp_words(qs5_range to, __m512i v) { return _mm512_min_epi16(_mm512_max_epi16(v, to.low), to.high); }

/* Codes in their range; rows have room for 32. */
QS5_INLINE void store_words(int size, void *row, int64_t at, __m512i v) {
  if (size == 1) _mm256_storeu_si256((__m256i *)(void *)((int8_t *)row + at), _mm512_cvtepi16_epi8(v));
  else _mm512_storeu_si512((int16_t *)row + at, v);
}

/* Two vectors of 32-bit lanes in pairs, saturated to a signal's format. */
QS5_INLINE __m512i narrow_pair(qs5_range to, __m512i v0, __m512i v1) {
  if (to.unsigned16) return _mm512_min_epu16(_mm512_packus_epi32(v0, v1), to.high);
  return clamp_words(to, _mm512_packs_epi32(v0, v1));
}

/* -- ops: their constants, then what they do ----------------------------------------------------------------------- */

/* 256 bytes in four registers: the lower seven bits look up in two of them, the upper one selects. */
typedef struct {
  __m512i part[4];
  int is_signed;
} qs5_look_up;

QS5_INLINE qs5_look_up look_up_of(const qs5_op *op) {
  const uint8_t *t = op->bytes_table;
  return (qs5_look_up){{load512(t), load512(t + 64), load512(t + 128), load512(t + 192)}, op->to->type == QS5_I8};
}

QS5_INLINE __m512i look_up_bytes(const qs5_look_up *t, __m512i i) {
  const __m512i lower = _mm512_permutex2var_epi8(t->part[0], i, t->part[1]);
  const __m512i upper = _mm512_permutex2var_epi8(t->part[2], i, t->part[3]);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(i), lower, upper);
}

QS5_INLINE __m512i look_up_words(const qs5_look_up *t, __m512i v) {
  const __m512i found = look_up_bytes(t, _mm512_castsi256_si512(_mm512_cvtepi16_epi8(v)));
  const __m256i bytes = _mm512_castsi512_si256(found);
  return t->is_signed ? _mm512_cvtepi8_epi16(bytes) : _mm512_cvtepu8_epi16(bytes);
}

/* shift(v, s), 0 <= s <= 15: vpmulhrsw is (v m + 2^14) >> 15, and m = 2^(15 - s). */
typedef struct {
  qs5_range to;
  __m512i m;
  int shifts;
} qs5_shifted;

QS5_INLINE qs5_shifted shifted_of(const qs5_op *op) {
  const int32_t s = op->numbers[0];
  return (qs5_shifted){range_of(op->to), _mm512_set1_epi16((int16_t)(s ? 1 << (15 - s) : 0)), s != 0};
}

QS5_INLINE __m512i shift_words(const qs5_shifted *by, __m512i v) { return by->shifts ? _mm512_mulhrs_epi16(v, by->m) : v; }

QS5_INLINE __m512i multiply_words(const qs5_shifted *op, __m512i x, __m512i y) {
  return clamp_words(op->to, shift_words(op, _mm512_mullo_epi16(x, y)));
}

/* A saturating sum stays beyond every narrower format that the sum is beyond. */
QS5_INLINE __m512i add_words(const qs5_shifted *op, __m512i x, __m512i y) {
  return clamp_words(op->to, _mm512_adds_epi16(x, shift_words(op, y)));
}

/* Of 32 channels. */
typedef struct {
  qs5_range to;
  __m512i M, offset[2], shift[2];
} qs5_affine;

QS5_INLINE qs5_affine affine_of(const qs5_op *op, int64_t at) {
  return (qs5_affine){range_of(op->to), load512(op->M16 + at), {load512(op->offset2 + at), load512(op->offset2 + at + 16)},
                      {load512(op->shift2 + at), load512(op->shift2 + at + 16)}};
}

QS5_INLINE __m512i affine_words(const qs5_affine *op, __m512i x) {
  const __m512i low = _mm512_mullo_epi16(x, op->M), high = _mm512_mulhi_epi16(x, op->M);
  const __m512i v0 = _mm512_add_epi32(_mm512_unpacklo_epi16(low, high), op->offset[0]);
  const __m512i v1 = _mm512_add_epi32(_mm512_unpackhi_epi16(low, high), op->offset[1]);
  return narrow_pair(op->to, _mm512_srav_epi32(v0, op->shift[0]), _mm512_srav_epi32(v1, op->shift[1]));
}

#endif
