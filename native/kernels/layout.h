// Padding: inside the kernels every row is a whole number of vectors, so that no loop has a tail. The padding is zero
// and stays zero. A packed state (re, im) is padded in both halves.
#pragma once

#include <cstdlib>

#include "pointwise.h"

namespace qs5 {
namespace QS5_ISA {

inline Index round_up(Index n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Sizes of one call with their padded values. C reads Cp columns: the states of all directions, one after the other.
// Fp flags belong to the two halves of a packed state.
struct Padded : Shape {
  Index Hp, Mp, S, Sp, Cp, Fp;

  explicit Padded(const Shape &s)
      : Shape(s), Hp(round_up(s.H)), Mp(round_up(s.M)), S(2 * s.M), Sp(2 * Mp), Cp(s.directions * Sp),
        Fp(2 * flags_of(s.M)) {}
  bool both_ways() const { return directions == 2; }
};

enum class Fill { kZero, kNone };

// A block of memory given out in pieces, aligned to cache lines, zeroed unless told otherwise.
class Arena {
public:
  explicit Arena(Index floats, Fill fill = Fill::kZero) : size_(round(floats)) {
    base_ = next_ = static_cast<float *>(std::aligned_alloc(64, static_cast<size_t>(size_) * sizeof(float)));
    if (base_ == nullptr && size_ > 0) std::abort();
    if (fill == Fill::kZero) std::memset(base_, 0, static_cast<size_t>(size_) * sizeof(float));
  }
  ~Arena() { std::free(base_); }
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  float *take(Index floats) {
    float *p = next_;
    next_ += round(floats);
    if (next_ > base_ + size_) std::abort();
    return p;
  }
  static Index round(Index floats) { return (floats + 15) / 16 * 16; }

private:
  Index size_;
  float *base_, *next_;
};

inline void copy(float *to, const float *from, Index n) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}

// n floats from memory into a padded row, whose padding is zero already.
inline void read_row(float *to, const float *from, Index n) {
  Index j = 0;
  for (; j + kLanes <= n; j += kLanes) store(to + j, load(from + j));
  for (; j < n; ++j) to[j] = from[j];
}

inline void write_row(float *to, const float *from, Index n) {
  Index j = 0;
  for (; j + kLanes <= n; j += kLanes) stream(to + j, load(from + j));
  for (; j < n; ++j) to[j] = from[j];
}

inline void read_state(float *to, const float *from, const Padded &n) {
  read_row(to, from, n.M);
  read_row(to + n.Mp, from + n.M, n.M);
}

inline void write_state(float *to, const float *from, const Padded &n) {
  write_row(to, from, n.M);
  write_row(to + n.M, from + n.Mp, n.M);
}

// Index of column c of what C reads (directions, re or im, M) in a padded row.
inline Index padded_column(Index c, const Padded &n) { return c / n.M * n.Mp + c % n.M; }

// Dense (H, S) <-> padded (Hp, Sp), and (directions S, H) <-> (Cp, Hp), (H, H) <-> (Hp, Hp).
inline void read_hs(float *to, const float *from, const Padded &n) {
  for (Index h = 0; h < n.H; ++h) read_state(to + h * n.Sp, from + h * n.S, n);
}
inline void write_hs(float *to, const float *from, const Padded &n) {
  for (Index h = 0; h < n.H; ++h) write_state(to + h * n.S, from + h * n.Sp, n);
}
inline void read_ch(float *to, const float *from, const Padded &n) {
  for (Index c = 0; c < n.directions * n.S; ++c) copy(to + padded_column(c, n) * n.Hp, from + c * n.H, n.H);
}
inline void write_ch(float *to, const float *from, const Padded &n) {
  for (Index c = 0; c < n.directions * n.S; ++c) copy(to + c * n.H, from + padded_column(c, n) * n.Hp, n.H);
}
inline void read_hh(float *to, const float *from, const Padded &n) {
  for (Index h = 0; h < n.H; ++h) copy(to + h * n.Hp, from + h * n.H, n.H);
}
inline void write_hh(float *to, const float *from, const Padded &n) {
  for (Index h = 0; h < n.H; ++h) copy(to + h * n.H, from + h * n.Hp, n.H);
}

// A chunk of the batch, all time steps: what one task works on.
struct Chunk {
  Index first, count;
};

// How many chunks: a multiple of the threads, two to six for each, so that a slow thread does not hold up the others for
// long; of these the fewest that leave least waiting at the end. Fixed by sizes and threads alone: sums over chunks are
// then the same in every run.
inline int chunks_of(Index B, int threads) {
  if (threads <= 1) return 1;
  Index best = 2 * threads < B ? 2 * threads : B;
  for (Index n = 2 * threads; n <= 6 * threads && n <= B; n += threads) {
    const Index largest = (B + n - 1) / n;
    if (n * largest < best * ((B + best - 1) / best)) best = n;
  }
  return static_cast<int>(best);
}

inline Chunk chunk(Index B, int chunks, int i) {
  const Index begin = B * i / chunks, end = B * (i + 1) / chunks;
  return {begin, end - begin};
}

} // namespace QS5_ISA
} // namespace qs5
