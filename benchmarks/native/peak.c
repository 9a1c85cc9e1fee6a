/* The most 8-bit multiply-accumulates a second that one thread can do from registers. */
#include <immintrin.h>
#include <stdint.h>

enum { SUMS = 16 };

/* Every sum begins with another value, or the compiler would make one of them. n rounds of SUMS vector instructions. The result is returned so that nothing is left out. */
int32_t peak_int8(int64_t n) {
  __m512i sums[SUMS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
#pragma GCC unroll 16
  for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_set1_epi32((int32_t)n + i);
  for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
  }
#pragma GCC unroll 16
  for (int i = 1; i < SUMS; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  return _mm512_reduce_add_epi32(sums[0]);
}
