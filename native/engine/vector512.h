/* Sixteen codes of any type as 32-bit lanes and back, and the functions of SPEC.md on them. AVX-512. */
#ifndef QS5_VECTOR512_H
#define QS5_VECTOR512_H

#include <immintrin.h>

#include "plan.h"

#define QS5_INLINE static inline __attribute__((always_inline))

QS5_INLINE __m512i load512(const void *from) { return _mm512_loadu_si512(from); }

/* Lanes beyond `mask` are 0 and are not read. */
QS5_INLINE __m512i load_codes(qs5_type type, const void *row, int64_t at, __mmask16 mask) {
  const int8_t *bytes = (const int8_t *)row + at;
  const int16_t *halves = (const int16_t *)row + at;
  switch (type) {
  case QS5_I8: return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, bytes));
  case QS5_U8: return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, bytes));
  case QS5_I16: return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, halves));
  default: return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, halves));
  }
}

enum { QS5_ALL_LANES = 0xFFFF };

QS5_INLINE __m512i clamp512(__m512i v, __m512i low, __m512i high) {
  return _mm512_min_epi32(_mm512_max_epi32(v, low), high);
}

/* Saturates to a signal's format and writes sixteen codes; rows have room for them. */
QS5_INLINE void write_codes(const qs5_info *to, void *row, int64_t at, __m512i v) {
  v = clamp512(v, _mm512_set1_epi32(to->low), _mm512_set1_epi32(to->high));
  if (to->size == 1) _mm_storeu_si128((__m128i *)(void *)((int8_t *)row + at), _mm512_cvtepi32_epi8(v));
  else _mm256_storeu_si256((__m256i *)(void *)((int16_t *)row + at), _mm512_cvtepi32_epi16(v));
}

/* (v + 2^s) >> (s + 1) without overflow, s >= 0. */
QS5_INLINE __m512i round512(__m512i v, __m512i s) {
  return _mm512_srai_epi32(_mm512_add_epi32(_mm512_srav_epi32(v, s), _mm512_set1_epi32(1)), 1);
}

/* requantize for shifts of at least 17. With acc = 2^16 h + l: h M is a multiply-add of 16-bit pairs with M in the upper
 * half, floor(l M / 2^16) is the upper half of an unsigned 16-bit product with M in the lower half. */
typedef struct {
  __m512i low, high, right; /* right: shift - 17 */
} qs5_factors;

/* From 2^16 M + shift - 17. */
QS5_INLINE qs5_factors factors(__m512i packed) {
  const __m512i upper = _mm512_set1_epi32((int32_t)0xFFFF0000);
  const qs5_factors f = {_mm512_srli_epi32(packed, 16), _mm512_and_si512(packed, upper), _mm512_andnot_si512(upper, packed)};
  return f;
}

QS5_INLINE __m512i rescale512(__m512i acc, qs5_factors f) {
  return round512(_mm512_add_epi32(_mm512_madd_epi16(acc, f.high), _mm512_mulhi_epu16(acc, f.low)), f.right);
}

/* The same with the rounding half at hand, for many rows: sums of 32 bits hold it, since |acc M| / 2^16 <= 2^30 and the
 * half is at most 2^29. */
typedef struct {
  __m512i low, high, half, right; /* right: shift - 16 */
} qs5_scaling;

QS5_INLINE qs5_scaling scaling(__m512i packed) {
  const qs5_factors f = factors(packed);
  const __m512i one = _mm512_set1_epi32(1);
  return (qs5_scaling){f.low, f.high, _mm512_sllv_epi32(one, f.right), _mm512_add_epi32(f.right, one)};
}

QS5_INLINE __m512i scale512(__m512i acc, qs5_scaling f) {
  const __m512i upper = _mm512_dpwssd_epi32(f.half, acc, f.high);
  return _mm512_srav_epi32(_mm512_add_epi32(upper, _mm512_mulhi_epu16(acc, f.low)), f.right);
}

/* Makes up for a shift below 17; what is clipped saturates either way. */
QS5_INLINE __m512i raise512(__m512i acc, __m512i left) {
  const __m512i limit = _mm512_srlv_epi32(_mm512_set1_epi32(INT32_MAX), left);
  return _mm512_sllv_epi32(clamp512(acc, _mm512_sub_epi32(_mm512_setzero_si512(), limit), limit), left);
}

#endif
