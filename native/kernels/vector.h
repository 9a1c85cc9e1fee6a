// Vectors of float32, as wide as the instruction set has them, and the few operations that the kernels need.
// GCC's vector extensions do most; intrinsics where they have no operator (fused multiply-add, floor).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels.h"

namespace qs5 {
namespace QS5_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IVec __attribute__((vector_size(4 * kLanes)));
typedef int8_t BVec __attribute__((vector_size(kLanes)));
typedef float UnalignedVec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vec load(const float *p) { return *reinterpret_cast<const UnalignedVec *>(p); }
inline void store(float *p, Vec v) { *reinterpret_cast<UnalignedVec *>(p) = v; }
inline Vec splat(float x) { return x - Vec{}; }
inline Vec zero() { return Vec{}; }

// Writes around the caches where the address allows it: for what is not read again soon.
inline void stream(float *p, Vec v) {
#if defined(__AVX512F__)
  if ((reinterpret_cast<uintptr_t>(p) & 63) == 0) return _mm512_stream_ps(p, v);
#elif defined(__AVX2__)
  if ((reinterpret_cast<uintptr_t>(p) & 31) == 0) return _mm256_stream_ps(p, v);
#endif
  store(p, v);
}

// Must follow the last `stream` of a task before another thread may read what was written.
inline void stream_end() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// a b + c, rounded once where the processor can.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

inline Vec select(IVec condition, Vec yes, Vec no) { return condition ? yes : no; }

// NaN stays NaN: a diverged training must be seen. (x86's minimum and maximum give their second operand then.)
inline Vec clip(Vec x, Vec low, Vec high) {
#if defined(__AVX512F__)
  return _mm512_min_ps(high, _mm512_max_ps(low, x));
#elif defined(__AVX2__)
  return _mm256_min_ps(high, _mm256_max_ps(low, x));
#else
  x = select(x < low, low, x);
  return select(x > high, high, x);
#endif
}

// floor, for |x| < 2^31.
inline Vec floor(Vec x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return _mm256_floor_ps(x);
#else
  Vec t = __builtin_convertvector(__builtin_convertvector(x, IVec), Vec);
  t = select(t > x, t - 1.0f, t);
  return select(x == x, t, x);
#endif
}

// The nearest integer, ties to even, for |x| < 2^22.
inline Vec nearest_even(Vec x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Vec shift = splat(0x1.8p23f); // beside it float32 has the integers and nothing between
  return x + shift - shift;
#endif
}

inline Vec magnitude(Vec x) { return (Vec)((IVec)x & 0x7fffffff); }

// True in the first n lanes.
inline IVec lanes_below(Index n) {
  IVec lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < static_cast<int32_t>(n < 0 ? 0 : n < kLanes ? n : kLanes);
}

// 1 / x to the last bit or two, for 2^-126 <= |x| <= 2^126.
inline Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  const Vec r = _mm512_rcp14_ps(x); // 14 bits, doubled by one step of Newton's
  return fma(r, fma(-x, r, splat(1.0f)), r);
#else
  return 1.0f / x;
#endif
}

// x 2^n for an integer n that keeps both x and the result normal.
inline Vec scale_by_power(Vec x, Vec n) {
#if defined(__AVX512F__)
  return _mm512_scalef_ps(x, n);
#else
  return x * (Vec)((__builtin_convertvector(n, IVec) + 127) << 23); // the same bits
#endif
}

inline float sum(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(v);
#else
  float total = 0.0f;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
#endif
}

// One condition a lane, in memory one byte a lane: not 0 where it holds.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
typedef __mmask16 Mask;
inline Mask within(Vec x, Vec low, Vec high) {
  return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(x, low, _CMP_GE_OQ), x, high, _CMP_LE_OQ);
}
inline Vec where(Mask mask, Vec x) { return _mm512_maskz_mov_ps(mask, x); }
inline void store_mask(uint8_t *p, Mask mask) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm_movm_epi8(mask));
}
inline Mask load_mask(const uint8_t *p) {
  return _mm_movepi8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
#else
typedef IVec Mask;
inline Mask within(Vec x, Vec low, Vec high) { return (x >= low) & (x <= high); }
inline Vec where(Mask mask, Vec x) { return mask ? x : Vec{}; }
inline void store_mask(uint8_t *p, Mask mask) {
  const BVec bytes = __builtin_convertvector(mask, BVec);
  std::memcpy(p, &bytes, kLanes);
}
inline Mask load_mask(const uint8_t *p) {
  BVec bytes;
  std::memcpy(&bytes, p, kLanes);
  return __builtin_convertvector(bytes, IVec) != 0;
}
#endif

} // namespace QS5_ISA
} // namespace qs5
