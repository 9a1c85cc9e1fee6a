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

template <bool kQuantized> inline Vec rounded(const Grid &g, Index j, Vec x) {
  if (!kQuantized || !g.rounds()) return x;
  return codes(g, j, x) * load(g.step + j);
}

inline IVec is_inside(const Grid &g, Index j, Vec x) {
  const Vec scaled = x * load(g.inverse + j);
  return (scaled >= g.low) & (scaled <= g.high);
}

// The straight-through gradient of `rounded` at x: d inside of the range, 0 outside.
template <bool kQuantized> inline Vec straight(const Grid &g, Index j, Vec x, Vec d) {
  if (!kQuantized || !g.rounds()) return d;
  return select(is_inside(g, j, x), d, zero());
}

} // namespace QS5_ISA
} // namespace qs5
