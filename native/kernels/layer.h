// One residual S5 layer in one call: forward, and backward in reverse time. Everything in a layer but the recurrence
// is token-wise, so a task walks through time in blocks that stay in the cache, carrying the state of its sequences.
//
// A block is a few time steps times the sequences of a chunk; its rows are numbered r = t count + b.
//
// With a recurrence in both directions a task walks through time twice: backwards for what comes from the right, then
// forwards for the rest. Between the two walks B^T u and the states from the right wait in a buffer of all time steps.
#pragma once

#include "gemm.h"
#include "layout.h"

namespace qs5 {
namespace QS5_ISA {

constexpr Index kBlockRows = 96; // about 250 KB of buffers a thread in the backward pass: half of a 1 MiB cache for two

// The weights of a call, padded and packed, and the grids of its sites. Read by all tasks.
struct Weights {
  Packed B, C, W, Bt, Ct, Wt;
  const float *gain, *offset, *D, *b, *a_re, *a_im;
  Grid grids[kSites];
};

inline Index weights_floats(const Padded &n) {
  const Index matrices = n.Hp * (n.Sp + n.Cp + n.Hp);
  return 2 * matrices + 4 * n.Hp + n.Sp + kSites * 2 * (n.Hp + n.Sp) + 64 * 16;
}

inline bool is_state_site(int site) { return site >= kBu && site <= kStateReverseOut; }

inline Grid read_grid(const Layer &l, const Padded &n, int site, Arena &arena) {
  if (!((l.grids.rounded >> site) & 1)) return {nullptr, nullptr, 0.0f, 0.0f};
  const float *rows = l.grids.table + static_cast<Index>(site) * 4 * l.grids.width;
  const bool state = is_state_site(site);
  float *pair[2];
  for (int i = 0; i < 2; ++i) {
    pair[i] = arena.take(state ? n.Sp : n.Hp);
    if (state) read_state(pair[i], rows + i * l.grids.width, n);
    else read_row(pair[i], rows + i * l.grids.width, n.H);
  }
  return {pair[0], pair[1], rows[2 * l.grids.width], rows[3 * l.grids.width]};
}

inline const float *read_channels(const float *from, const Padded &n, Arena &arena) {
  float *to = arena.take(n.Hp);
  read_row(to, from, n.H);
  return to;
}

inline Weights read_weights(const Layer &l, const Padded &n, bool transposed, Arena &arena) {
  Weights w{};
  const Index hs = n.Hp * n.Sp, hc = n.Hp * n.Cp, hh = n.Hp * n.Hp;
  float *B = arena.take(hs), *C = arena.take(hc), *W = arena.take(hh);
  read_hs(B, l.B, n);
  read_ch(C, l.C, n);
  read_hh(W, l.W, n);
  if (transposed) {
    w.Bt = pack(B, n.Sp, n.Hp, true, arena.take(hs));
    w.Ct = pack(C, n.Hp, n.Cp, true, arena.take(hc));
    w.Wt = pack(W, n.Hp, n.Hp, true, arena.take(hh));
  } else {
    w.B = pack(B, n.Hp, n.Sp, false, arena.take(hs));
    w.C = pack(C, n.Cp, n.Hp, false, arena.take(hc));
    w.W = pack(W, n.Hp, n.Hp, false, arena.take(hh));
  }
  w.gain = read_channels(l.gain, n, arena);
  w.offset = read_channels(l.offset, n, arena);
  w.D = read_channels(l.D, n, arena);
  w.b = read_channels(l.b, n, arena);
  float *a = arena.take(n.Sp);
  read_state(a, l.a, n);
  w.a_re = a, w.a_im = a + n.Mp;
  for (int i = 0; i < kSites; ++i) w.grids[i] = read_grid(l, n, i, arena);
  return w;
}

// The part of a block's rows that belongs to one time step, and where it is in the (L, B, .) arrays.
struct Block {
  Index begin, steps; // time
  Chunk chunk;

  Index rows() const { return steps * chunk.count; }
  Index token(Index r, const Padded &n) const { return (begin + r / chunk.count) * n.B + sequence(r); }
  Index sequence(Index r) const { return chunk.first + r % chunk.count; }
};

// The block before time step `end`, of at most `stride` steps, and the one from `begin` on; without steps, outside.
inline Block block_before(Index end, Index stride, const Chunk &chunk) {
  const Index begin = end > stride ? end - stride : 0;
  return {begin, end - begin, chunk};
}
inline Block block_from(Index begin, Index stride, Index L, const Chunk &chunk) {
  const Index left = L - begin;
  return {begin, left < 0 ? 0 : left < stride ? left : stride, chunk};
}

// Asks for what a block reads of an array (L, B, width).
template <class T>
inline void want_block(Ahead &ahead, const T *array, Index width, const Block &block, const Padded &n) {
  if (block.steps > 0)
    ahead.want(array + (block.begin * n.B + block.chunk.first) * width, block.chunk.count * width, block.steps,
               n.B * width);
}

inline Index steps_of(const Chunk &c) { return c.count >= kBlockRows ? 1 : kBlockRows / c.count; }

// Mean and reciprocal standard deviation of a padded row.
struct RowNorm {
  float mean, scale;
};

inline RowNorm row_norm(const float *x, const Padded &n, float epsilon) {
  Vec total = zero(), squares = zero();
  for (Index j = 0; j < n.Hp; j += kLanes) {
    total = total + load(x + j);
    squares = fma(load(x + j), load(x + j), squares);
  }
  const float mean = sum(total) / static_cast<float>(n.H);
  const float variance = sum(squares) / static_cast<float>(n.H) - mean * mean;
  return {mean, 1.0f / __builtin_sqrtf((variance < 0.0f ? 0.0f : variance) + epsilon)};
}

// The norm's real result before rounding: xhat gain + offset, xhat = x for a batch norm (folded into the gain).
inline void normalize_row(float *to, const float *x, const RowNorm &row, const Weights &w, Index n) {
  const float *gain = w.gain, *offset = w.offset;
  for (Index j = 0; j < n; j += kLanes)
    store(to + j, fma((load(x + j) - row.mean) * row.scale, load(gain + j), load(offset + j)));
}

inline RowNorm norm_of(const Layer &l, const float *x, const Padded &n) {
  return l.layer_norm ? row_norm(x, n, l.epsilon) : RowNorm{0.0f, 1.0f};
}

// ---- forward ---------------------------------------------------------------------------------------------------

struct ForwardTask {
  const LayerForward &f;
  const Padded &n;
  const Weights &w;
  Chunk chunk;
  float *x, *u, *y, *g; // rows of Hp
  float *state;         // rows of Cp, all time steps if there are two directions: B^T u, then what C reads
  float *carry;         // sequences of Sp
  float *block_sums;    // (2, Hp)
  float *masks;                         // (2, count, Hp)
  double *sums;                         // (2, Hp)
};

inline Index forward_floats(const Padded &n, Index count) {
  const Index rows = steps_of({0, count}) * count;
  return rows * (4 * n.Hp + n.Cp) + count * n.Sp + (2 + 4 + 2 * count) * n.Hp + 16 * 16;
}

// The rows of a block in a buffer of all time steps if there are two directions, else of one block.
inline float *rows_of_block(float *buffer, Index width, const Block &block, const Padded &n) {
  return n.both_ways() ? buffer + block.begin * block.chunk.count * width : buffer;
}

// Asks for a block's rows of such a buffer, to be read or written.
inline void want_rows(Ahead &ahead, float *buffer, Index width, const Block &block, const Padded &n) {
  if (n.both_ways() && block.steps > 0)
    ahead.want(rows_of_block(buffer, width, block, n), block.rows() * width, 1, 0);
}

inline ForwardTask at_block(const ForwardTask &t, const Block &block) {
  ForwardTask here = t;
  here.state = rows_of_block(t.state, t.n.Cp, block, t.n);
  return here;
}

// Whether a row lies past the end of its sequence, where u is 0.
inline bool is_padding(const Layer &l, const Block &block, Index r) {
  return l.lengths && block.begin + r / block.chunk.count >= l.lengths[block.sequence(r)];
}

// x and u of a block.
inline void read_and_norm(const ForwardTask &t, const Block &block) {
  const Padded n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    float *x = t.x + r * n.Hp, *u = t.u + r * n.Hp;
    read_row(x, t.f.layer.x + block.token(r, n) * n.H, n.H);
    normalize_row(u, x, norm_of(t.f.layer, x, n), t.w, n.Hp);
    round_row(t.w.grids[kNorm], u, n.Hp);
    if (is_padding(t.f.layer, block, r)) clear_row(u, n.Hp);
  }
}

// Notes where B^T u of a row was inside of the range of its grid.
inline void note_inside(Grid grid, uint8_t *inside, const float *v, const Padded &n) {
  for (Index half = 0; half < 2; ++half)
    for (Index j = 0; j < n.Mp; j += kLanes) {
      const Index i = half * n.Mp + j;
      store_mask(inside + half * n.Fp / 2 + j, is_inside(grid, i, load(v + i)));
    }
}

struct Rotated {
  Vec re, im;
};

// a s + v. The order of the operations is fixed: where the state is rounded, a test compares bits.
inline Rotated advance(Vec a_re, Vec a_im, Vec re, Vec im, Vec v_re, Vec v_im) {
  return {fma(a_re, re, -(a_im * im)) + v_re, fma(a_re, im, a_im * re) + v_im};
}

// A direction of the recurrence: its columns in the rows of t.state, its place in the saved states, its grids.
struct Direction {
  bool reverse;
  Index column, saved;
  Grid state, read;

  // Row number i of a block in the order in which the recurrence runs.
  Index row(Index i, const Block &block) const { return reverse ? block.rows() - 1 - i : i; }
};

inline Direction from_left(const Weights &w) { return {false, 0, 0, w.grids[kState], w.grids[kStateOut]}; }
inline Direction from_right(const Weights &w, const Padded &n) {
  return {true, n.Sp, n.L * n.B * n.S, w.grids[kStateReverse], w.grids[kStateReverseOut]};
}

// v = Q(B^T u), for both directions; where it was inside of the range is kept for the backward pass.
inline void forward_Bu(const ForwardTask &t, const Block &block) {
  const Padded n = t.n;
  const Grid grid = t.w.grids[kBu];
  if (!grid.rounds()) return;
  for (Index r = 0; r < block.rows(); ++r) {
    float *v = t.state + r * n.Cp;
    if (t.f.saved.inside) note_inside(grid, t.f.saved.inside + block.token(r, n) * n.Fp, v, n);
    round_row(grid, v, n.Sp);
  }
}

// A row of the recurrence: carry = Q(a carry + v).
inline void advance_row(const float *a_re, const float *a_im, const Grid &state, float *carry, const float *v,
                        const Padded &n) {
  for (Index j = 0, i = n.Mp; j < n.Mp; j += kLanes, i += kLanes) {
    const Rotated s =
        advance(load(a_re + j), load(a_im + j), load(carry + j), load(carry + i), load(v + j), load(v + i));
    store(carry + j, s.re);
    store(carry + i, s.im);
  }
  round_row(state, carry, n.Sp);
}

// s_k = Q(a s_{k-1} + v_k), v = Q(B^T u) in the first columns of t.state; from the right r_k = Q(a r_{k+1} + v_k).
// What C reads (codes where it is rounded) is left in the direction's columns.
inline void forward_scan(const ForwardTask &t, const Block &block, const Direction &direction) {
  const Padded n = t.n;
  for (Index k = 0; k < block.rows(); ++k) {
    const Index r = direction.row(k, block);
    float *row = t.state + r * n.Cp, *carry = t.carry + (r % t.chunk.count) * n.Sp, *to = row + direction.column;
    advance_row(t.w.a_re, t.w.a_im, direction.state, carry, row, n);
    if (direction.read.rounds()) codes_row(direction.read, to, carry, n.Sp);
    else read_row(to, carry, n.Sp);
    if (t.f.saved.states) write_state(t.f.saved.states + direction.saved + block.token(r, n) * n.S, carry, n);
  }
}

// y = C^T s + D u (its product is in t.y), g = m1 gelu(y).
inline void forward_gelu(const ForwardTask &t, const Block &block) {
  const Padded n = t.n;
  const Layer &l = t.f.layer;
  const Grid *grids = t.w.grids;
  const float *D = t.w.D;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    const float *mask = t.masks + (r % t.chunk.count) * n.Hp, *u = t.u + at;
    float *y = t.y + at, *g = t.g + at;
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec value = fma(load(u + j), load(D + j), load(y + j));
      store(y + j, value);
      store(g + j, value);
    }
    round_row(grids[kY], g, n.Hp);
    gelu_row(l.gelu, g, n.Hp);
    round_row(grids[kGelu], g, n.Hp);
    if (l.m1) {
      scale_row(mask, g, n.Hp);
      round_row(grids[kGelu], g, n.Hp);
    }
    if (t.f.saved.y) write_row(t.f.saved.y + block.token(r, n) * n.H, y, n.H);
  }
}

// z = W^T g + b (its product is in t.y), out = x + m2 g sigmoid(z), into t.u; sums of out and its square.
inline void forward_gate(const ForwardTask &t, const Block &block) {
  const Padded n = t.n;
  const Layer &l = t.f.layer;
  const Grid *grids = t.w.grids;
  const float *b = t.w.b;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    const float *mask = t.masks + (t.chunk.count + r % t.chunk.count) * n.Hp;
    float *z = t.y + at, *out = t.u + at;
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec value = load(z + j) + load(b + j);
      store(z + j, value);
      store(out + j, value);
    }
    round_row(grids[kGate], out, n.Hp);
    gate_row(l.gate, out, n.Hp);
    round_row(grids[kSigmoid], out, n.Hp);
    scale_row(t.g + at, out, n.Hp);
    round_row(grids[kProduct], out, n.Hp);
    if (l.m2) {
      scale_row(mask, out, n.Hp);
      round_row(grids[kProduct], out, n.Hp);
    }
    add_row(t.x + at, out, n.Hp);
    round_row(grids[kResidual], out, n.Hp);
    add_moments(t.block_sums, out, n.Hp);
    write_row(t.f.out + block.token(r, n) * n.H, out, n.H);
    if (t.f.saved.z) write_row(t.f.saved.z + block.token(r, n) * n.H, z, n.H);
  }
}

// Sums of a block are float32, sums of blocks double.
inline void flush_sums(const ForwardTask &t) {
  for (Index j = 0; j < 2 * t.n.Hp; ++j) t.sums[j] += static_cast<double>(t.block_sums[j]);
  std::memset(t.block_sums, 0, static_cast<size_t>(2 * t.n.Hp) * sizeof(float));
}

inline void forward_input(const ForwardTask &t, const Block &block, Ahead &ahead) {
  multiply(t.u, t.n.Hp, t.w.B, t.state, t.n.Cp, block.rows(), false, ahead);
  forward_Bu(t, block);
}

inline void forward_output(const ForwardTask &t, const Block &block, Ahead &ahead) {
  const Padded n = t.n;
  multiply(t.state, n.Cp, t.w.C, t.y, n.Hp, block.rows(), false, ahead);
  forward_gelu(t, block);
  multiply(t.g, n.Hp, t.w.W, t.y, n.Hp, block.rows(), false, ahead);
  forward_gate(t, block);
  flush_sums(t);
}

// The first of two walks: B^T u and the states from the right.
inline void walk_from_right(const ForwardTask &t) {
  const Padded n = t.n;
  const Index stride = steps_of(t.chunk);
  const Direction right = from_right(t.w, n);
  for (Index end = n.L; end > 0; end -= stride) {
    const Block block = block_before(end, stride, t.chunk), next = block_before(block.begin, stride, t.chunk);
    const ForwardTask here = at_block(t, block);
    Ahead ahead;
    want_block(ahead, t.f.layer.x, n.H, next, n);
    want_rows(ahead, t.state, n.Cp, next, n);
    ahead.spread(calls_of(block.rows(), n.Sp, n.Hp));
    read_and_norm(here, block);
    forward_input(here, block, ahead);
    forward_scan(here, block, right);
  }
}

// The states from the left, and what comes after C; B^T u, too, unless another walk has it already.
inline void walk_from_left(const ForwardTask &t) {
  const Padded n = t.n;
  const Index stride = steps_of(t.chunk);
  const Direction left = from_left(t.w);
  for (Index begin = 0; begin < n.L; begin += stride) {
    const Block block = block_from(begin, stride, n.L, t.chunk), next = block_from(begin + stride, stride, n.L, t.chunk);
    const ForwardTask here = at_block(t, block);
    Ahead ahead;
    want_block(ahead, t.f.layer.x, n.H, next, n);
    want_rows(ahead, t.state, n.Cp, next, n);
    ahead.spread(calls_of(block.rows(), n.Hp, n.Cp) + calls_of(block.rows(), n.Hp, n.Hp));
    read_and_norm(here, block);
    if (!n.both_ways()) forward_input(here, block, ahead);
    forward_scan(here, block, left);
    forward_output(here, block, ahead);
  }
}

inline void forward_task(const ForwardTask &t) {
  const Padded n = t.n;
  if (n.both_ways()) walk_from_right(t);
  for (Index b = 0; b < t.chunk.count; ++b)
    read_state(t.carry + b * n.Sp, t.f.layer.x0 + (t.chunk.first + b) * n.S, n);
  walk_from_left(t);
  for (Index b = 0; b < t.chunk.count; ++b)
    write_state(t.f.last + (t.chunk.first + b) * n.S, t.carry + b * n.Sp, n);
}

struct ForwardCall {
  const LayerForward &f;
  const Padded &n;
  const Weights &w;
  int chunks;
  double *sums; // (chunks, 2, Hp)
};

inline void read_masks(float *to, const Layer &l, const Padded &n, const Chunk &c) {
  for (Index b = 0; b < c.count; ++b) {
    if (l.m1) read_row(to + b * n.Hp, l.m1 + (c.first + b) * n.H, n.H);
    if (l.m2) read_row(to + (c.count + b) * n.Hp, l.m2 + (c.first + b) * n.H, n.H);
  }
}

inline void run_forward(void *data, int i) {
  const ForwardCall &call = *static_cast<const ForwardCall *>(data);
  const Padded &n = call.n;
  const Chunk c = chunk(n.B, call.chunks, i);
  Arena arena(forward_floats(n, c.count)), all_steps(n.both_ways() ? n.L * c.count * n.Cp : 0, Fill::kNone);
  const Index rows = steps_of(c) * c.count, h = rows * n.Hp;
  float *state = n.both_ways() ? all_steps.take(n.L * c.count * n.Cp) : arena.take(rows * n.Cp);
  ForwardTask t{call.f, n, call.w, c, arena.take(h), arena.take(h), arena.take(h), arena.take(h), state,
                arena.take(c.count * n.Sp), arena.take(2 * n.Hp), arena.take(2 * c.count * n.Hp),
                call.sums + i * 2 * n.Hp};
  read_masks(t.masks, call.f.layer, n, c);
  forward_task(t);
  stream_end();
}

inline void layer_forward(const LayerForward &f, const Runner &runner) {
  const Padded n(f.layer.shape);
  Arena arena(weights_floats(n));
  const Weights w = read_weights(f.layer, n, false, arena);
  const int chunks = chunks_of(n.B, runner.threads);
  Arena sums(chunks * 4 * n.Hp); // doubles
  ForwardCall call{f, n, w, chunks, reinterpret_cast<double *>(sums.take(chunks * 4 * n.Hp))};
  runner.run(runner.context, chunks, run_forward, &call);
  for (Index j = 0; j < n.H; ++j) {
    double total = 0.0, squares = 0.0;
    for (int i = 0; i < chunks; ++i) {
      total += call.sums[i * 2 * n.Hp + j];
      squares += call.sums[i * 2 * n.Hp + n.Hp + j];
    }
    f.sum[j] = static_cast<float>(total);
    f.sum_square[j] = static_cast<float>(squares);
  }
}

} // namespace QS5_ISA
} // namespace qs5
