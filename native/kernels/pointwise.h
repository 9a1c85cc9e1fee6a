// Exponential, sigmoid, GELU and the paper's piecewise replacements, with derivatives; rounding to a grid.
#pragma once

#include "vector.h"

namespace qs5 {
namespace QS5_ISA {

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2.  exp(r) = 1 + r + r^2 q(r), where q is a polynomial of
// degree 4, fitted for least relative error: 3e-9 before rounding. Outside of +-87 the value at the edge.
inline Vec exponential(Vec x) {
  x = clip(x, splat(-87.0f), splat(87.0f));
  const Vec n = floor(fma(x, splat(1.44269504f), splat(0.5f)));
  Vec r = fma(n, splat(-0.693145752f), x);   // the upper bits of ln 2: the product is exact
  r = fma(n, splat(-1.42860677e-6f), r);
  Vec q = fma(splat(1.3814539415781856e-3f), r, splat(8.36874544620514e-3f));
  q = fma(q, r, splat(4.166838899254799e-2f));
  q = fma(q, r, splat(0.1666652113199234f));
  q = fma(q, r, splat(0.4999999403953552f));
  return scale_by_power(fma(q, r * r, r) + 1.0f, n);
}

inline Vec sigmoid(Vec x) { return reciprocal(1.0f + exponential(-x)); }

struct ValueSlope {
  Vec value, slope;
};

// gelu(y) = y sigmoid(2 w), w = sqrt(2/pi) (y + 0.044715 y^3): the tanh form, as (1 + tanh w) / 2 = sigmoid(2 w).
inline ValueSlope gelu_tanh(Vec y) {
  const Vec square = y * y;
  const Vec w2 = y * fma(square, splat(0.0713548163f), splat(1.59576912f));
  const Vec cdf = sigmoid(w2);
  const Vec dw2 = fma(square, splat(0.214064449f), splat(1.59576912f));
  return {y * cdf, fma(y * dw2, cdf * (1.0f - cdf), cdf)};
}

// qgelu(y) = y h(y), h = min(max(0, y + 2), 4) / 4.
inline ValueSlope qgelu(Vec y) {
  const Vec h = clip(y + 2.0f, zero(), splat(4.0f)) * 0.25f;
  const Vec inner = select((y > -2.0f) & (y < 2.0f), y * 0.25f, zero());
  return {y * h, h + inner};
}

inline ValueSlope gelu(int kind, Vec y) { return kind == kGeluTanh ? gelu_tanh(y) : qgelu(y); }

inline ValueSlope soft_sigmoid(Vec z) {
  const Vec s = sigmoid(z);
  return {s, s * (1.0f - s)};
}

// relu6(z + 3) / 6.
inline ValueSlope hard_sigmoid(Vec z) {
  const Vec s = clip(z + 3.0f, zero(), splat(6.0f)) / 6.0f;
  return {s, select((z > -3.0f) & (z < 3.0f), splat(1.0f / 6.0f), zero())};
}

inline ValueSlope gate(int kind, Vec z) { return kind == kSoftSigmoid ? soft_sigmoid(z) : hard_sigmoid(z); }

// A grid with one step a channel, arrays padded to whole vectors. No arrays: the site is float.
struct Grid {
  const float *inverse, *step;
  float low, high;

  bool rounds() const { return inverse != nullptr; }
};

// Codes clip(floor(x / step + 1/2)); ties go up. Exact, as the steps are powers of two.
inline Vec codes(const Grid &g, Index j, Vec x) {
  return clip(floor(x * load(g.inverse + j) + 0.5f), splat(g.low), splat(g.high));
}

inline Vec rounded(const Grid &g, Index j, Vec x) { return g.rounds() ? codes(g, j, x) * load(g.step + j) : x; }

inline Mask is_inside(const Grid &g, Index j, Vec x) {
  return within(x * load(g.inverse + j), splat(g.low), splat(g.high));
}

// The straight-through gradient of `rounded` at x: d inside of the range, 0 outside.
inline Vec straight(const Grid &g, Index j, Vec x, Vec d) { return g.rounds() ? where(is_inside(g, j, x), d) : d; }

// ---- rows ------------------------------------------------------------------------------------------------------
// A chain of functions is applied to a row one function at a time: the loop of one has short dependences, so that the
// processor overlaps its steps. A loop over the whole chain waits for results most of the time.

inline void round_row(Grid g, float *x, Index n) {
  if (!g.rounds()) return;
  for (Index j = 0; j < n; j += kLanes) store(x + j, rounded(g, j, load(x + j)));
}

// Codes of one row into another.
inline void codes_row(Grid g, float *to, const float *x, Index n) {
  for (Index j = 0; j < n; j += kLanes) store(to + j, codes(g, j, load(x + j)));
}

inline void gelu_row(int kind, float *x, Index n) {
  for (Index j = 0; j < n; j += kLanes) store(x + j, gelu(kind, load(x + j)).value);
}

inline void gate_row(int kind, float *x, Index n) {
  for (Index j = 0; j < n; j += kLanes) store(x + j, gate(kind, load(x + j)).value);
}

inline void scale_row(const float *by, float *x, Index n) {
  for (Index j = 0; j < n; j += kLanes) store(x + j, load(x + j) * load(by + j));
}

inline void clear_row(float *x, Index n) { std::memset(x, 0, static_cast<size_t>(n) * sizeof(float)); }

inline void add_row(const float *what, float *x, Index n) {
  for (Index j = 0; j < n; j += kLanes) store(x + j, load(x + j) + load(what + j));
}

// Adds x and its square to the two rows of `sums`.
inline void add_moments(float *sums, const float *x, Index n) {
  for (Index j = 0; j < n; j += kLanes) {
    store(sums + j, load(sums + j) + load(x + j));
    store(sums + n + j, fma(load(x + j), load(x + j), load(sums + n + j)));
  }
}

// A row and its derivative by what it was computed from.
struct DualRow {
  float *value, *slope;
  Index n;

  // The first function, with which `slope` begins.
  void begin(Grid g) const {
    for (Index j = 0; j < n; j += kLanes) {
      const Vec x = load(value + j);
      store(slope + j, straight(g, j, x, splat(1.0f)));
      store(value + j, rounded(g, j, x));
    }
  }
  void clear() const {
    clear_row(value, n);
    clear_row(slope, n);
  }
  void round(Grid g) const {
    if (!g.rounds()) return;
    for (Index j = 0; j < n; j += kLanes) {
      const Vec x = load(value + j);
      store(slope + j, straight(g, j, x, load(slope + j)));
      store(value + j, rounded(g, j, x));
    }
  }
  void apply_gelu(int kind) const {
    for (Index j = 0; j < n; j += kLanes) follow(j, gelu(kind, load(value + j)));
  }
  void apply_gate(int kind) const {
    for (Index j = 0; j < n; j += kLanes) follow(j, gate(kind, load(value + j)));
  }
  void scale(const float *by) const {
    for (Index j = 0; j < n; j += kLanes) {
      const Vec factor = load(by + j);
      follow(j, {load(value + j) * factor, factor});
    }
  }

private:
  void follow(Index j, const ValueSlope &f) const {
    store(value + j, f.value);
    store(slope + j, load(slope + j) * f.slope);
  }
};

} // namespace QS5_ISA
} // namespace qs5
