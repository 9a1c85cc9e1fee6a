/* v = W x + bias for a few rows of 16-bit inputs. Weights are [outputs][inputs] in plain C; with AVX2 they are
 * [outputs / 8][inputs / 2][8][2], so that one multiply-add of pairs serves eight outputs. */
#ifndef QS5_PRODUCT_H
#define QS5_PRODUCT_H

#include "plan.h"

#if defined(__AVX2__)
#include <immintrin.h>
#include <string.h>

static inline __m256i pair_of(const int16_t *x) {
  int32_t pair;
  memcpy(&pair, x, sizeof pair);
  return _mm256_set1_epi32(pair);
}

/* Two vectors of outputs for `rows` rows; `rows` is a constant where this is inlined. */
static inline void product_tile(const qs5_op *op, int rows, const int16_t *x, int64_t x_stride, int32_t at, int32_t *v,
                                int64_t v_stride) {
  const int64_t groups = op->groups;
  const __m256i *w = (const __m256i *)op->weight + at * groups, *w1 = w + groups;
  __m256i sum[QS5_PRODUCT_ROWS][2];
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < 2; ++c) sum[r][c] = _mm256_load_si256((const __m256i *)(const void *)(op->bias + 8 * (at + c)));
  for (int64_t g = 0; g < groups; ++g)
    for (int r = 0; r < rows; ++r) {
      const __m256i pair = pair_of(x + r * x_stride + 2 * g);
      sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(pair, w[g]));
      sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(pair, w1[g]));
    }
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < 2; ++c) _mm256_store_si256((__m256i *)(void *)(v + r * v_stride + 8 * (at + c)), sum[r][c]);
}

static void product(const qs5_op *op, int rows, const int16_t *x, int64_t x_stride, int32_t *v, int64_t v_stride) {
  const int32_t vectors = (op->outputs + 15) / 16 * 2;
  for (int32_t at = 0; at < vectors; at += 2) {
    if (rows == QS5_PRODUCT_ROWS) {
      product_tile(op, QS5_PRODUCT_ROWS, x, x_stride, at, v, v_stride);
    } else {
      for (int r = 0; r < rows; ++r) product_tile(op, 1, x + r * x_stride, 0, at, v + r * v_stride, 0);
    }
  }
}

#else

static void product(const qs5_op *op, int rows, const int16_t *x, int64_t x_stride, int32_t *v, int64_t v_stride) {
  for (int r = 0; r < rows; ++r) {
    const int16_t *w = op->weight, *from = x + r * x_stride;
    for (int32_t o = 0; o < op->outputs; ++o, w += op->inputs) {
      int32_t sum = 0;
      for (int32_t i = 0; i < op->inputs; ++i) sum += (int32_t)w[i] * (int32_t)from[i];
      v[r * v_stride + o] = sum + op->bias[o];
    }
  }
}

#endif
#endif
