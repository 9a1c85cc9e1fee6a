// The recurrence as a prefix over pairs with quantized products, and its gradient: what the paper trains with.
//
//   (A_i, b_i) o (A_j, b_j) = (A_j * A_i,  A_j * b_i + b_j)      * of operands rounded to grids of their own
//
// The tree is that of jax.lax.associative_scan: level l + 1 has the combined neighbours of level l, and an element that
// has no neighbour before it on its own level goes on from the state that the level above found. Lambda-bar is the same
// at every step, so a level has one power of it.
//
// Every grid belongs to one node and one sequence: its step is the largest magnitude over the modes. Hence the layout:
// 16 sequences side by side, mode after mode, so that a maximum over modes is one of whole vectors.
#pragma once

#include "layout.h"

namespace qs5 {
namespace QS5_ISA {

// Levels of the tree over L elements. Level l has size[l] elements; together they are `rows`, level after level.
struct Tree {
  static constexpr int kMost = 64;
  int top = 0; // the level with one element
  Index size[kMost], first[kMost], rows = 0;

  explicit Tree(Index L) {
    for (Index n = L; n > 0; n /= 2) {
      size[top] = n, first[top] = rows;
      rows += n;
      ++top;
    }
    --top;
  }
  // The step of the sequence whose state is element i of level l.
  static Index step_of(int l, Index i) { return ((i + 1) << l) - 1; }
};

// ---- grids ----

struct Scale {
  Vec top, inverse, step;
};

inline float high_of(const PrefixGrid &g) { return static_cast<float>((1 << (g.bits - 1)) - 1); }

inline Scale scale_of(Vec top, const PrefixGrid &g) {
  const Vec step = select(top < splat(kPrefixZero), splat(1.0f), top) * g.inverse_edge;
  return {top, 1.0f / step, step};
}

// x on a grid; bits 0: as it is. One bit has the two levels -step/2 and step/2.
inline Vec on_grid(Vec x, const Scale &s, const PrefixGrid &g) {
  if (g.bits == 0) return x;
  const Vec t = x * s.inverse;
  if (g.bits == 1) return clip(floor(t) + 0.5f, splat(-0.5f), splat(0.5f)) * s.step;
  return clip(nearest_even(t), splat(-high_of(g)), splat(high_of(g))) * s.step;
}

// Largest magnitude over M modes of kPrefixBlock sequences side by side. A NaN stays in its own mode: its value is NaN
// whatever the scale.
inline Vec top_of(const float *p, Index M) {
  Vec top = zero();
  for (Index m = 0; m < M; ++m) {
    const Vec x = magnitude(load(p + m * kPrefixBlock));
    top = select(top > x, top, x);
  }
  return top;
}

// The scale of a half, real or imaginary, of one element.
inline Scale half_scale(const float *p, Index M, const PrefixGrid &g) { return scale_of(top_of(p, M), g); }

// That of the same half after it was rounded: rounding keeps the order of magnitudes.
inline Scale second_scale(const Scale &first, const PrefixGrid &once, const PrefixGrid &again) {
  return scale_of(magnitude(on_grid(first.top, first, once)), again);
}

// Both halves of one sequence, a row of S = 2M numbers.
inline void round_row(float *to, const float *from, Index M, const PrefixGrid &g) {
  for (Index half = 0; half < 2 * M; half += M) {
    float top = 0.0f;
    for (Index m = half; m < half + M; ++m) top = from[m] > top ? from[m] : -from[m] > top ? -from[m] : top;
    const Scale s = scale_of(splat(top), g);
    for (Index m = half; m < half + M; ++m) to[m] = on_grid(splat(from[m]), s, g)[0];
  }
}

// ---- one element ----

// out = A * Q(x) + b, for kLanes of the sequences. A (S); the others are at a distance of kPrefixBlock from mode to mode.
inline void prefix_advance(const float *A, const float *x, const float *b, float *out, Index M, const PrefixGrid &g) {
  const Index half = M * kPrefixBlock;
  const Scale re = half_scale(x, M, g), im = half_scale(x + half, M, g);
  for (Index m = 0; m < M; ++m) {
    const Index at = m * kPrefixBlock;
    const Vec x_re = on_grid(load(x + at), re, g), x_im = on_grid(load(x + half + at), im, g);
    const Vec a_re = splat(A[m]), a_im = splat(A[M + m]);
    store(out + at, (a_re * x_re - a_im * x_im) + load(b + at));
    store(out + half + at, (a_re * x_im + a_im * x_re) + load(b + half + at));
  }
}

// Gradient of A * Q(x) for kLanes sequences, from the cotangent g of the product: g_x += conj(A) g and
// g_A += conj(x) g, summed over those of the sequences that exist. Straight through Q.
inline void prefix_retreat(const float *A, const float *x, const float *g, float *g_x, float *g_A, Index M, IVec exists,
                           const PrefixGrid &state, const PrefixGrid &back) {
  const Index half = M * kPrefixBlock;
  const Scale once_re = half_scale(x, M, state), once_im = half_scale(x + half, M, state);
  const Scale twice_re = second_scale(once_re, state, back), twice_im = second_scale(once_im, state, back);
  const Scale from_re = half_scale(g, M, back), from_im = half_scale(g + half, M, back);
  for (Index m = 0; m < M; ++m) {
    const Index re = m * kPrefixBlock, im = half + re;
    const Vec x_re = on_grid(on_grid(load(x + re), once_re, state), twice_re, back);
    const Vec x_im = on_grid(on_grid(load(x + im), once_im, state), twice_im, back);
    const Vec g_re = on_grid(load(g + re), from_re, back), g_im = on_grid(load(g + im), from_im, back);
    const Vec a_re = splat(A[m]), a_im = splat(A[M + m]);
    store(g_x + re, load(g_x + re) + (a_re * g_re + a_im * g_im));
    store(g_x + im, load(g_x + im) + (a_re * g_im - a_im * g_re));
    g_A[m] += sum(select(exists, x_re * g_re + x_im * g_im, zero()));
    g_A[M + m] += sum(select(exists, x_re * g_im - x_im * g_re, zero()));
  }
}

// ---- 16 sequences ----

inline Chunk prefix_block(Index B, int i) {
  const Index first = i * kPrefixBlock, left = B - first;
  return {first, left < kPrefixBlock ? left : kPrefixBlock};
}

// A block's sequences side by side <-> (L, B, S).
inline void read_block(float *to, const float *from, const Shape &n, bool reverse, const Chunk &block) {
  const Index S = 2 * n.M;
  for (Index k = 0; k < n.L; ++k) {
    const float *row = from + ((reverse ? n.L - 1 - k : k) * n.B + block.first) * S;
    for (Index s = 0; s < S; ++s, to += kPrefixBlock) {
      for (Index lane = 0; lane < block.count; ++lane) to[lane] = row[lane * S + s];
      for (Index lane = block.count; lane < kPrefixBlock; ++lane) to[lane] = 0.0f;
    }
  }
}

inline void write_block(float *to, const float *from, const Shape &n, bool reverse, const Chunk &block) {
  const Index S = 2 * n.M;
  for (Index k = 0; k < n.L; ++k) {
    float *row = to + ((reverse ? n.L - 1 - k : k) * n.B + block.first) * S;
    for (Index s = 0; s < S; ++s, from += kPrefixBlock)
      for (Index lane = 0; lane < block.count; ++lane) row[lane * S + s] = from[lane];
  }
}

// What a block computes with, and where its rows of S * kPrefixBlock numbers are: the elements of all levels, and states.
struct PrefixBlock {
  const Tree &tree;
  Index M, width;
  float *levels, *states;

  PrefixBlock(const Tree &tree, Index M, float *memory)
      : tree(tree), M(M), width(2 * M * kPrefixBlock), levels(memory), states(memory + tree.rows * width) {}
  float *element(int l, Index i) const { return levels + (tree.first[l] + i) * width; }
  float *state(int l, Index i) const { return states + Tree::step_of(l, i) * width; }
};

inline Index prefix_block_floats(const Tree &tree, const Shape &n) {
  return (tree.rows + n.L) * 2 * n.M * kPrefixBlock;
}

inline void prefix_states(const PrefixBlock &p, const float *powers, const PrefixGrid &g) {
  const Tree &t = p.tree;
  const Index S = 2 * p.M;
  const auto advance = [&](int l, const float *x, const float *b, float *out) {
    for (Index v = 0; v < kPrefixBlock; v += kLanes) prefix_advance(powers + l * S, x + v, b + v, out + v, p.M, g);
  };
  for (int l = 0; l < t.top; ++l)
    for (Index i = 0; i < t.size[l + 1]; ++i)
      advance(l, p.element(l, 2 * i), p.element(l, 2 * i + 1), p.element(l + 1, i));
  for (int l = t.top; l >= 0; --l) {
    copy(p.state(l, 0), p.element(l, 0), p.width);
    for (Index i = 2; i < t.size[l]; i += 2) advance(l, p.state(l, i - 1), p.element(l, i), p.state(l, i));
  }
}

// On entry g.states has the cotangents of the states; on return level 0 of g has those of b. g_A (rows, S): of the powers
// as each element used them.
inline void prefix_gradient(const PrefixBlock &p, const PrefixBlock &g, float *g_A, const float *powers, Index count,
                            const PrefixGrid &state, const PrefixGrid &back) {
  const Tree &t = p.tree;
  const Index S = 2 * p.M;
  const auto retreat = [&](int l, Index i, const float *x, const float *from, float *g_x) {
    for (Index v = 0; v < kPrefixBlock; v += kLanes)
      prefix_retreat(powers + l * S, x + v, from + v, g_x + v, g_A + (t.first[l] + i) * S, p.M,
                     lanes_below(count - v), state, back);
  };
  for (int l = 0; l <= t.top; ++l) {
    copy(g.element(l, 0), g.state(l, 0), p.width);
    for (Index i = 2; i < t.size[l]; i += 2) {
      copy(g.element(l, i), g.state(l, i), p.width);
      retreat(l, i, p.state(l, i - 1), g.state(l, i), g.state(l, i - 1));
    }
  }
  for (int l = t.top - 1; l >= 0; --l)
    for (Index i = 0; i < t.size[l + 1]; ++i) {
      copy(g.element(l, 2 * i + 1), g.element(l + 1, i), p.width);
      retreat(l, 2 * i + 1, p.element(l, 2 * i), g.element(l + 1, i), g.element(l, 2 * i));
    }
}

// ---- powers of Lambda-bar ----

// Rounded powers (top + 1, S): P_0 = Q(a), P_{l+1} = Q(P_l * P_l).
inline void prefix_powers(float *powers, const float *a, const Tree &t, Index M, const PrefixGrid &g, float *square) {
  const Index S = 2 * M;
  copy(square, a, S);
  for (int l = 0; l <= t.top; ++l) {
    float *P = powers + l * S;
    round_row(P, square, M, g);
    for (Index m = 0; m < M; ++m) {
      square[m] = P[m] * P[m] - P[M + m] * P[M + m];
      square[M + m] = P[m] * P[M + m] + P[M + m] * P[m];
    }
  }
}

// Through the powers: g_A (rows, S) of all levels becomes that of level 0. Both factors of a product are the same power.
// rounded: what the gradient is multiplied with; scratch (S).
inline void prefix_powers_gradient(float *g_A, const float *rounded, const Tree &t, Index M, const PrefixGrid &back,
                                   float *scratch) {
  const Index S = 2 * M;
  for (int l = t.top - 1; l >= 0; --l)
    for (Index i = 0; i < t.size[l + 1]; ++i) {
      const float *P = rounded + l * S, *g = scratch;
      round_row(scratch, g_A + (t.first[l + 1] + i) * S, M, back);
      float *earlier = g_A + (t.first[l] + 2 * i) * S, *later = earlier + S;
      for (Index m = 0; m < M; ++m) {
        const float re = P[m] * g[m] + P[M + m] * g[M + m], im = P[m] * g[M + m] - P[M + m] * g[m];
        earlier[m] += re, earlier[M + m] += im;
        later[m] += re, later[M + m] += im;
      }
    }
}

// ---- calls ----

struct PrefixCall {
  const Prefix &f;
  const Tree &tree;
  const float *powers;
};

inline void run_prefix(void *data, int task) {
  const PrefixCall &call = *static_cast<const PrefixCall *>(data);
  const Prefix &f = call.f;
  const Chunk block = prefix_block(f.shape.B, task);
  const Index floats = prefix_block_floats(call.tree, f.shape);
  Arena arena(f.saved == nullptr ? floats : 0, Fill::kNone);
  const PrefixBlock p(call.tree, f.shape.M, f.saved == nullptr ? arena.take(floats) : f.saved + task * floats);
  read_block(p.levels, f.b, f.shape, f.reverse, block);
  prefix_states(p, call.powers, f.state);
  write_block(f.states, p.states, f.shape, f.reverse, block);
}

inline void prefix_forward(const Prefix &f, const Runner &runner) {
  const Tree tree(f.shape.L);
  const Index S = 2 * f.shape.M;
  Arena arena((tree.top + 1) * S + S + 32, Fill::kNone);
  float *powers = arena.take((tree.top + 1) * S);
  prefix_powers(powers, f.a, tree, f.shape.M, f.a_grid, arena.take(S));
  PrefixCall call{f, tree, powers};
  runner.run(runner.context, static_cast<int>(prefix_blocks(f.shape.B)), run_prefix, &call);
}

struct PrefixBackwardCall {
  const PrefixBackward &f;
  const Tree &tree;
  const float *powers; // as the gradient of A * x reads them
  float *g_A;          // (blocks, rows, S)
};

inline void run_prefix_backward(void *data, int task) {
  const PrefixBackwardCall &call = *static_cast<const PrefixBackwardCall *>(data);
  const PrefixBackward &f = call.f;
  const Chunk block = prefix_block(f.shape.B, task);
  const Index floats = prefix_block_floats(call.tree, f.shape);
  Arena arena(floats, Fill::kNone);
  const PrefixBlock p(call.tree, f.shape.M, const_cast<float *>(f.saved) + task * floats); // read only
  const PrefixBlock g(call.tree, f.shape.M, arena.take(floats));
  read_block(g.states, f.g, f.shape, f.reverse, block);
  prefix_gradient(p, g, call.g_A + task * call.tree.rows * 2 * f.shape.M, call.powers, block.count, f.state, f.back);
  write_block(f.g_b, g.levels, f.shape, f.reverse, block);
}

inline void prefix_backward(const PrefixBackward &f, const Runner &runner) {
  const Tree tree(f.shape.L);
  const Index M = f.shape.M, S = 2 * M, levels = tree.top + 1, blocks = prefix_blocks(f.shape.B);
  const Index all = tree.rows * S;
  Arena arena(3 * levels * S + S + blocks * all + 80);
  float *powers = arena.take(levels * S), *for_states = arena.take(levels * S), *for_powers = arena.take(levels * S);
  float *scratch = arena.take(S), *g_A = arena.take(blocks * all);
  prefix_powers(powers, f.a, tree, M, f.a_grid, scratch);
  for (Index l = 0; l < levels; ++l) {
    round_row(for_states + l * S, powers + l * S, M, f.back);
    round_row(for_powers + l * S, powers + l * S, M, f.a_back);
  }
  PrefixBackwardCall call{f, tree, for_states, g_A};
  runner.run(runner.context, static_cast<int>(blocks), run_prefix_backward, &call);
  for (Index i = 1; i < blocks; ++i)
    for (Index j = 0; j < all; ++j) g_A[j] += g_A[i * all + j];
  prefix_powers_gradient(g_A, for_powers, tree, M, f.a_back, scratch);
  for (Index k = 1; k < f.shape.L; ++k)
    for (Index s = 0; s < S; ++s) g_A[s] += g_A[k * S + s];
  copy(f.g_a, g_A, S);
}

} // namespace QS5_ISA
} // namespace qs5
