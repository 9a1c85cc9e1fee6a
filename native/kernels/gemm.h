// Products of a tall block of rows with a small matrix, both in cache.
//
// A tile of C, kRows x kVecs vectors, stays in registers while k runs; the matrix B is packed once a call into panels of
// kVecs vectors, so that a panel is read in order. The transposed product (weight gradients) reads B's rows in place.
#pragma once

#include "vector.h"

namespace qs5 {
namespace QS5_ISA {

#if defined(__AVX512F__)
constexpr int kMaxVecs = 4; // of 32 registers: 24 accumulators, 4 of B
constexpr int rows_of(int vecs) { return vecs == 4 ? 6 : vecs == 3 ? 8 : 12; }
#else
constexpr int kMaxVecs = 2; // of 16 registers: 12 (8) accumulators, 2 of B, one of A
constexpr int rows_of(int vecs) { return vecs == 2 ? (kLanes == 8 ? 6 : 4) : 8; }
#endif

// Asks for memory that the next block reads, a few cache lines between two tiles: a product uses no memory bandwidth.
constexpr Index kAheadEvery = 8; // terms of a sum

class Ahead {
public:
  // `runs` stretches of `count` numbers, `stride` numbers apart. At most kArrays arrays.
  template <class T> void want(const T *first, Index count, Index runs, Index stride) {
    const Index size = static_cast<Index>(sizeof(T));
    arrays_[count_++] = {reinterpret_cast<const char *>(first), count * size, runs, stride * size};
  }
  // Spreads what is wanted over `calls` calls of `step`.
  void spread(Index calls) {
    Index lines = 0;
    for (int i = 0; i < count_; ++i) lines += (arrays_[i].bytes + 127) / 64 * arrays_[i].runs;
    lines_ = calls == 0 ? 0 : (lines + calls - 1) / calls; // rows that fill no tile: no call
  }
  void step() {
    for (Index i = 0; i < lines_ && at_ < count_; ++i) line();
  }

private:
  struct Array {
    const char *first;
    Index bytes, runs, stride;
  };

  void line() {
    const Array &a = arrays_[at_];
    __builtin_prefetch(a.first + run_ * a.stride + byte_, 0, 2);
    byte_ += 64;
    if (byte_ < a.bytes) return;
    byte_ = 0;
    if (++run_ == a.runs) run_ = 0, ++at_;
  }

  static constexpr int kArrays = 10;
  Array arrays_[kArrays];
  int count_ = 0, at_ = 0;
  Index run_ = 0, byte_ = 0, lines_ = 0;
};

// C[i, :] = (or +=) sum_k A(i, k) B[k, :] for kRows rows, A(i, k) at a[i lda + k], transposed a[k lda + i].
template <int kRows, int kVecs, bool kTransposed>
inline void tile(const float *a, Index lda, const float *b, Index ldb, float *c, Index ldc, Index K, bool add,
                 Ahead &ahead) {
  Vec sums[kRows][kVecs];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) sums[i][j] = add ? load(c + i * ldc + j * kLanes) : zero();
  for (Index k = 0; k < K; ++k, b += ldb) {
    if (k % kAheadEvery == 0) ahead.step();
    Vec row[kVecs];
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) row[j] = load(b + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vec x = splat(kTransposed ? a[k * lda + i] : a[i * lda + k]);
#pragma GCC unroll 4
      for (int j = 0; j < kVecs; ++j) sums[i][j] = fma(x, row[j], sums[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) store(c + i * ldc + j * kLanes, sums[i][j]);
}

// All rows of one panel: whole tiles, then 4, 2 and 1 rows.
template <int kVecs, bool kTransposed>
inline void panel(const float *a, Index lda, const float *b, Index ldb, float *c, Index ldc, Index rows, Index K,
                  bool add, Ahead &ahead) {
  constexpr int kRows = rows_of(kVecs);
  const Index step = kTransposed ? 1 : lda;
  Index i = 0;
  for (; i + kRows <= rows; i += kRows) {
    tile<kRows, kVecs, kTransposed>(a + i * step, lda, b, ldb, c + i * ldc, ldc, K, add, ahead);
  }
  for (; i + 4 <= rows; i += 4) tile<4, kVecs, kTransposed>(a + i * step, lda, b, ldb, c + i * ldc, ldc, K, add, ahead);
  for (; i + 2 <= rows; i += 2) tile<2, kVecs, kTransposed>(a + i * step, lda, b, ldb, c + i * ldc, ldc, K, add, ahead);
  for (; i < rows; ++i) tile<1, kVecs, kTransposed>(a + i * step, lda, b, ldb, c + i * ldc, ldc, K, add, ahead);
}

template <bool kTransposed>
inline void panel_of(int vecs, const float *a, Index lda, const float *b, Index ldb, float *c, Index ldc, Index rows,
                     Index K, bool add, Ahead &ahead) {
  switch (vecs) {
#if defined(__AVX512F__)
  case 4: return panel<4, kTransposed>(a, lda, b, ldb, c, ldc, rows, K, add, ahead);
  case 3: return panel<3, kTransposed>(a, lda, b, ldb, c, ldc, rows, K, add, ahead);
#endif
  case 2: return panel<2, kTransposed>(a, lda, b, ldb, c, ldc, rows, K, add, ahead);
  default: return panel<1, kTransposed>(a, lda, b, ldb, c, ldc, rows, K, add, ahead);
  }
}

// Widths of the panels of N columns: as few as possible, nearly equal.
inline int next_panel(Index left) {
  const Index vecs = left / kLanes, panels = (vecs + kMaxVecs - 1) / kMaxVecs;
  return static_cast<int>((vecs + panels - 1) / panels);
}

// How often the whole tiles of a product, `rows` rows and N columns, sums of K terms, call `step`.
inline Index calls_of(Index rows, Index N, Index K) {
  Index tiles = 0;
  for (Index n = 0; n < N;) {
    const int vecs = next_panel(N - n);
    tiles += rows / (vecs == 4 ? rows_of(4) : vecs == 3 ? rows_of(3) : vecs == 2 ? rows_of(2) : rows_of(1));
    n += vecs * kLanes;
  }
  return tiles * ((K + kAheadEvery - 1) / kAheadEvery);
}

// A matrix (K, N), N whole vectors, as panels one after another; same number of floats.
struct Packed {
  const float *data;
  Index K, N;
};

// Packs dense (K, N), or its transpose where dense is (N, K), into `to`.
inline Packed pack(const float *dense, Index K, Index N, bool transposed, float *to) {
  const Packed packed{to, K, N};
  for (Index n = 0; n < N;) {
    const Index width = next_panel(N - n) * kLanes;
    for (Index k = 0; k < K; ++k)
      for (Index j = n; j < n + width; ++j) *to++ = transposed ? dense[j * K + k] : dense[k * N + j];
    n += width;
  }
  return packed;
}

// C (rows, N) = (or +=) A (rows, K) B (K, N); rows of A and of C are lda and ldc floats apart.
inline void multiply(const float *a, Index lda, const Packed &b, float *c, Index ldc, Index rows, bool add,
                     Ahead &ahead) {
  const float *data = b.data;
  for (Index n = 0; n < b.N;) {
    const int vecs = next_panel(b.N - n);
    panel_of<false>(vecs, a, lda, data, vecs * kLanes, c + n, ldc, rows, b.K, add, ahead);
    data += b.K * vecs * kLanes;
    n += vecs * kLanes;
  }
}

// C (K, N) += A (rows, K)^T G (rows, N); A and C dense, rows of G ldg floats apart.
inline void add_outer(const float *a, Index K, const float *g, Index ldg, Index N, float *c, Index rows, Ahead &ahead) {
  for (Index n = 0; n < N;) {
    const int vecs = next_panel(N - n);
    panel_of<true>(vecs, a, K, g + n, ldg, c + n, N, K, rows, true, ahead);
    n += vecs * kLanes;
  }
}

} // namespace QS5_ISA
} // namespace qs5
