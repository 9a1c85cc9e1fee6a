/* The most float32 multiply-adds a second that one thread can do from registers, in the widest vectors the compiler was
   told of. Plain vector arithmetic: a compiler that has fused multiply-add makes one of a product and a sum. */
#include <stdint.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));

/* Independent sums hide the latency (4 cycles, two a cycle); with both factors they fit 16 registers. */
enum { SUMS = 12 };

int64_t peak_float_multiply_adds(int64_t n) { return n * SUMS * LANES; }

/* Every sum begins with another value that the compiler does not know, or it would make one of them; all tend to 1. The result is returned so
   that nothing is left out. */
float peak_float(int64_t n) {
  Vector sums[SUMS], half;
  for (int k = 0; k < LANES; ++k) half[k] = 0.5f;
#pragma GCC unroll 12
  for (int i = 0; i < SUMS; ++i) sums[i] = half * (float)(n + i);
  for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; ++i) sums[i] = sums[i] * half + half;
  }
  float total = 0.0f;
  for (int i = 0; i < SUMS; ++i)
    for (int k = 0; k < LANES; ++k) total += sums[i][k];
  return total;
}
