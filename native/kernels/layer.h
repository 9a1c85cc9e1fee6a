// One residual S5 layer in one call: forward, and backward in reverse time. Everything in a layer but the recurrence
// is token-wise, so a task walks through time in blocks that stay in the cache, carrying the state of its sequences.
//
// A block is a few time steps times the sequences of a chunk; its rows are numbered r = t count + b.
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
  const Index matrices = 2 * n.Hp * n.Sp + n.Hp * n.Hp;
  return 3 * matrices + 4 * n.Hp + n.Sp + kSites * 2 * (n.Hp + n.Sp) + 64 * 16;
}

inline bool is_state_site(int site) { return site == kBu || site == kState || site == kStateOut; }

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
  const Index hs = n.Hp * n.Sp, hh = n.Hp * n.Hp;
  float *B = arena.take(hs), *C = arena.take(hs), *W = arena.take(hh);
  read_hs(B, l.B, n);
  read_sh(C, l.C, n);
  read_hh(W, l.W, n);
  if (transposed) {
    w.Bt = pack(B, n.Sp, n.Hp, true, arena.take(hs));
    w.Ct = pack(C, n.Hp, n.Sp, true, arena.take(hs));
    w.Wt = pack(W, n.Hp, n.Hp, true, arena.take(hh));
  } else {
    w.B = pack(B, n.Hp, n.Sp, false, arena.take(hs));
    w.C = pack(C, n.Sp, n.Hp, false, arena.take(hs));
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

// Asks for what a block reads of an array (L, B, width).
inline void want_block(Ahead &ahead, const float *array, Index width, const Block &block, const Padded &n) {
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
inline Vec normalized(const Vec &x, const RowNorm &row, const Weights &w, Index j) {
  return fma((x - row.mean) * row.scale, load(w.gain + j), load(w.offset + j));
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
  float *x, *u, *state, *y, *g, *carry; // rows, rows, rows, rows, rows, sequences
  float *block_sums;                    // (2, Hp)
  float *masks;                         // (2, count, Hp)
  double *sums;                         // (2, Hp)
};

inline Index forward_floats(const Padded &n, Index count) {
  const Index rows = steps_of({0, count}) * count;
  return rows * (4 * n.Hp + n.Sp) + count * n.Sp + (2 + 4 + 2 * count) * n.Hp + 16 * 16;
}

template <bool kQuantized> inline void forward_norm(const ForwardTask &t, const Block &block) {
  const Padded &n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    float *x = t.x + r * n.Hp, *u = t.u + r * n.Hp;
    read_row(x, t.f.layer.x + block.token(r, n) * n.H, n.H);
    const RowNorm row = norm_of(t.f.layer, x, n);
    for (Index j = 0; j < n.Hp; j += kLanes)
      store(u + j, rounded<kQuantized>(t.w.grids[kNorm], j, normalized(load(x + j), row, t.w, j)));
  }
}

// A place for one byte a lane of the packed row (S) at `row`, from padded column j.
template <typename Byte> inline Byte *lanes_at(Byte *row, Index j, const Padded &n) {
  return row + (j < n.Mp ? j : n.M + j - n.Mp);
}

// How many lanes from padded column j on are no padding.
inline Index lanes_left(Index j, const Padded &n) {
  const Index left = n.M - (j < n.Mp ? j : j - n.Mp);
  return left < kLanes ? left : kLanes;
}

// B^T u onto its grid; where it was inside of the range is noted for the backward pass in `inside`, if that is wanted.
inline Vec round_Bu(const Grid &grid, Index j, Vec x, uint8_t *inside, const Padded &n) {
  if (inside) {
    uint8_t bytes[kLanes];
    const Index left = lanes_left(j, n);
    store_bytes(left == kLanes ? lanes_at(inside, j, n) : bytes, is_inside(grid, j, x));
    if (left < kLanes) std::memcpy(lanes_at(inside, j, n), bytes, static_cast<size_t>(left));
  }
  return rounded<true>(grid, j, x);
}

struct Rotated {
  Vec re, im;
};

// a s + v. The order of the operations is fixed: where the state is rounded, a test compares bits.
inline Rotated advance(Vec a_re, Vec a_im, Vec re, Vec im, Vec v_re, Vec v_im) {
  return {fma(a_re, re, -(a_im * im)) + v_re, fma(a_re, im, a_im * re) + v_im};
}

// s_k = Q(a s_{k-1} + Q(v_k)), in place of v = B^T u; what C reads (codes where it is rounded) is left in t.state.
template <bool kQuantized> inline void forward_scan(const ForwardTask &t, const Block &block) {
  const Padded &n = t.n;
  const Grid &bu = t.w.grids[kBu], &grid = t.w.grids[kState], &read = t.w.grids[kStateOut];
  for (Index r = 0; r < block.rows(); ++r) {
    float *carry = t.carry + (r % t.chunk.count) * n.Sp, *v = t.state + r * n.Sp;
    uint8_t *inside = t.f.saved.inside ? t.f.saved.inside + block.token(r, n) * n.S : nullptr;
    for (Index j = 0; j < n.Mp; j += kLanes) {
      const Index i = j + n.Mp;
      Vec v_re = load(v + j), v_im = load(v + i);
      if (kQuantized && bu.rounds()) {
        v_re = round_Bu(bu, j, v_re, inside, n);
        v_im = round_Bu(bu, i, v_im, inside, n);
      }
      Rotated s = advance(load(t.w.a_re + j), load(t.w.a_im + j), load(carry + j), load(carry + i), v_re, v_im);
      s = {rounded<kQuantized>(grid, j, s.re), rounded<kQuantized>(grid, i, s.im)};
      store(carry + j, s.re);
      store(carry + i, s.im);
      const bool reads = kQuantized && read.rounds();
      store(v + j, reads ? codes(read, j, s.re) : s.re);
      store(v + i, reads ? codes(read, i, s.im) : s.im);
    }
    if (t.f.saved.states) write_state(t.f.saved.states + block.token(r, n) * n.S, carry, n);
  }
}

// y = C^T s + D u (its product is in t.y), g = m1 gelu(y).
template <bool kQuantized> inline void forward_gelu(const ForwardTask &t, const Block &block) {
  const Padded &n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    const float *mask = t.masks + (r % t.chunk.count) * n.Hp;
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec y = fma(load(t.u + at + j), load(t.w.D + j), load(t.y + at + j));
      store(t.y + at + j, y);
      Vec g = gelu(t.f.layer.gelu, rounded<kQuantized>(t.w.grids[kY], j, y)).value;
      g = rounded<kQuantized>(t.w.grids[kGelu], j, g);
      if (t.f.layer.m1) g = rounded<kQuantized>(t.w.grids[kGelu], j, g * load(mask + j));
      store(t.g + at + j, g);
    }
    if (t.f.saved.y) write_row(t.f.saved.y + block.token(r, n) * n.H, t.y + at, n.H);
  }
}

// z = W^T g + b (its product is in t.y), out = x + m2 g sigmoid(z), into t.u; sums of out and its square.
template <bool kQuantized> inline void forward_gate(const ForwardTask &t, const Block &block) {
  const Padded &n = t.n;
  const Grid *grids = t.w.grids;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    const float *mask = t.masks + (t.chunk.count + r % t.chunk.count) * n.Hp;
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec z = load(t.y + at + j) + load(t.w.b + j);
      store(t.y + at + j, z);
      const Vec opening = gate(t.f.layer.gate, rounded<kQuantized>(grids[kGate], j, z)).value;
      Vec p = load(t.g + at + j) * rounded<kQuantized>(grids[kSigmoid], j, opening);
      p = rounded<kQuantized>(grids[kProduct], j, p);
      if (t.f.layer.m2) p = rounded<kQuantized>(grids[kProduct], j, p * load(mask + j));
      const Vec out = rounded<kQuantized>(grids[kResidual], j, load(t.x + at + j) + p);
      store(t.u + at + j, out);
      store(t.block_sums + j, load(t.block_sums + j) + out);
      store(t.block_sums + n.Hp + j, fma(out, out, load(t.block_sums + n.Hp + j)));
    }
    write_row(t.f.out + block.token(r, n) * n.H, t.u + at, n.H);
    if (t.f.saved.z) write_row(t.f.saved.z + block.token(r, n) * n.H, t.y + at, n.H);
  }
}

// Sums of a block are float32, sums of blocks double.
inline void flush_sums(const ForwardTask &t) {
  for (Index j = 0; j < 2 * t.n.Hp; ++j) t.sums[j] += static_cast<double>(t.block_sums[j]);
  std::memset(t.block_sums, 0, static_cast<size_t>(2 * t.n.Hp) * sizeof(float));
}

// The block that begins at a time step; without steps, behind the end.
inline Block block_at(Index begin, Index stride, const ForwardTask &t) {
  const Index left = t.n.L - begin;
  return {begin, left < 0 ? 0 : left < stride ? left : stride, t.chunk};
}

template <bool kQuantized> inline void forward_task(const ForwardTask &t) {
  const Padded &n = t.n;
  const Index stride = steps_of(t.chunk);
  for (Index begin = 0; begin < n.L; begin += stride) {
    const Block block = block_at(begin, stride, t);
    Ahead ahead;
    want_block(ahead, t.f.layer.x, n.H, block_at(begin + stride, stride, t), n);
    ahead.spread(calls_of(block.rows(), n.Sp, n.Hp) + calls_of(block.rows(), n.Hp, n.Sp));
    forward_norm<kQuantized>(t, block);
    multiply(t.u, t.w.B, t.state, block.rows(), false, ahead);
    forward_scan<kQuantized>(t, block);
    multiply(t.state, t.w.C, t.y, block.rows(), false, ahead);
    forward_gelu<kQuantized>(t, block);
    multiply(t.g, t.w.W, t.y, block.rows(), false, ahead);
    forward_gate<kQuantized>(t, block);
    flush_sums(t);
  }
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
  Arena arena(forward_floats(n, c.count));
  const Index rows = steps_of(c) * c.count;
  ForwardTask t{call.f, n, call.w, c, arena.take(rows * n.Hp), arena.take(rows * n.Hp), arena.take(rows * n.Sp),
                arena.take(rows * n.Hp), arena.take(rows * n.Hp), arena.take(c.count * n.Sp), arena.take(2 * n.Hp),
                arena.take(2 * c.count * n.Hp), call.sums + i * 2 * n.Hp};
  read_masks(t.masks, call.f.layer, n, c);
  for (Index b = 0; b < c.count; ++b) read_state(t.carry + b * n.Sp, call.f.layer.x0 + (c.first + b) * n.S, n);
  if (call.f.layer.grids.rounded) forward_task<true>(t);
  else forward_task<false>(t);
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
