// The gradient of a layer: blocks in reverse time; activations are computed again from y and z, weight gradients are
// summed per task and added up at the end, in the order of the tasks.
//
//   d = m2 d_out;   d_g = d sigmoid(z) + W d_z, d_z = d g sigmoid'(z);   d_y = m1 gelu'(y) d_g
//   d_s = C d_y;   mu_k = d_s_k + conj(a) mu_{k+1};   d_u = B mu + D d_y;   d_x = d_out + gain d_u
//
// Two directions: [d_s; d_r] = C d_y;   nu_k = d_r_k + conj(a) nu_{k-1};   d_u = B (mu + nu) + D d_y. nu runs forwards in
// time, hence a second walk; d_out, d_y, mu and d_r wait for it in buffers of all time steps.
#pragma once

#include "layer.h"

namespace qs5 {
namespace QS5_ISA {

// Gradients of the parameters, padded.
struct Gradients {
  float *B, *C, *W, *a;                // (Hp, Sp), (Cp, Hp), (Hp, Hp), (Sp)
  float *gain, *offset, *D, *b;        // (Hp)
};

inline Index gradients_floats(const Padded &n) {
  return n.Hp * (n.Sp + n.Cp + n.Hp) + n.Sp + 4 * n.Hp + 8 * 16;
}

inline Gradients take_gradients(const Padded &n, Arena &arena) {
  return {arena.take(n.Hp * n.Sp), arena.take(n.Cp * n.Hp), arena.take(n.Hp * n.Hp), arena.take(n.Sp),
          arena.take(n.Hp),        arena.take(n.Hp),        arena.take(n.Hp),        arena.take(n.Hp)};
}

struct BackwardTask {
  const LayerBackward &f;
  const Padded &n;
  const Weights &w;
  const float *g_sum, *g_sum_square; // (Hp)
  Chunk chunk;
  float *x, *u, *g, *d_z, *slope;       // rows of Hp
  float *state;                         // rows of Cp
  float *d_out, *d_g, *mu;              // rows of Hp, Hp, Cp; all time steps if there are two directions
                                        // d_out: gradient of the residual sum
  float *row;                           // two rows of Hp
  float *previous;                      // sequences of Sp: the states before the block, as its direction runs
  float *carry;                         // sequences of Sp: conj(a) mu_{k+1}, or conj(a) nu_{k-1}
  float *masks;                         // (2, count, Hp)
  Gradients sums;
};

inline Index backward_floats(const Padded &n, Index count) {
  const Index rows = steps_of({0, count}) * count;
  return rows * (5 * n.Hp + n.Cp) + 2 * count * (n.Sp + n.Hp) + 2 * n.Hp + gradients_floats(n) + 16 * 16;
}

// d_out, d_g and mu: rows of one block, or of all time steps.
inline Index waiting_rows(const Padded &n, const Chunk &c) { return (n.both_ways() ? n.L : steps_of(c)) * c.count; }

inline void want_waiting(Ahead &ahead, const BackwardTask &t, const Block &block) {
  want_rows(ahead, t.d_out, t.n.Hp, block, t.n);
  want_rows(ahead, t.d_g, t.n.Hp, block, t.n);
  want_rows(ahead, t.mu, t.n.Cp, block, t.n);
}

// Asks for the flags of a block, where B^T u is rounded.
inline void want_inside(Ahead &ahead, const BackwardTask &t, const Block &block) {
  if (t.w.grids[kBu].rounds()) want_block(ahead, t.f.saved.inside, t.n.S, block, t.n);
}

inline BackwardTask at_block(const BackwardTask &t, const Block &block) {
  BackwardTask here = t;
  here.d_out = rows_of_block(t.d_out, t.n.Hp, block, t.n);
  here.d_g = rows_of_block(t.d_g, t.n.Hp, block, t.n);
  here.mu = rows_of_block(t.mu, t.n.Cp, block, t.n);
  return here;
}

inline void add(float *to, Vec v) { store(to, load(to) + v); }

// From y, z and the output's gradient: g, d_z, d sigmoid(z) (in d_g), m1 gelu'(y) (in slope), d_out; and d_b.
template <bool kQuantized> inline void backward_gate(const BackwardTask &t, const Block &block) {
  const Padded &n = t.n;
  const Layer &l = t.f.layer;
  const Grid *grids = t.w.grids;
  float *y_row = t.row, *z_row = t.row + n.Hp;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp, token = block.token(r, n) * n.H;
    float *x = t.x + at, *d_out = t.d_out + at;
    const float *m1 = t.masks + (r % t.chunk.count) * n.Hp, *m2 = m1 + t.chunk.count * n.Hp;
    read_row(x, l.x + token, n.H);
    store(d_out + n.Hp - kLanes, zero()); // this buffer is not zeroed
    read_row(d_out, t.f.g_out + token, n.H);
    read_row(y_row, t.f.saved.y + token, n.H);
    read_row(z_row, t.f.saved.z + token, n.H);
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec y = load(y_row + j), z = load(z_row + j);
      const ValueSlope act = gelu(l.gelu, rounded<kQuantized>(grids[kY], j, y));
      const Vec g0 = rounded<kQuantized>(grids[kGelu], j, act.value);
      const Vec g1 = l.m1 ? g0 * load(m1 + j) : g0;
      const Vec g = l.m1 ? rounded<kQuantized>(grids[kGelu], j, g1) : g0;
      const ValueSlope open = gate(l.gate, rounded<kQuantized>(grids[kGate], j, z));
      const Vec opening = rounded<kQuantized>(grids[kSigmoid], j, open.value);
      const Vec p0 = g * opening, p1 = rounded<kQuantized>(grids[kProduct], j, p0);
      const Vec p2 = l.m2 ? p1 * load(m2 + j) : p1;
      const Vec real = load(x + j) + (l.m2 ? rounded<kQuantized>(grids[kProduct], j, p2) : p1);
      const Vec out = rounded<kQuantized>(grids[kResidual], j, real);

      Vec d = load(d_out + j) + fma(out, 2.0f * load(t.g_sum_square + j), load(t.g_sum + j));
      d = straight<kQuantized>(grids[kResidual], j, real, d);
      store(d_out + j, d);
      if (l.m2) d = straight<kQuantized>(grids[kProduct], j, p2, d) * load(m2 + j);
      d = straight<kQuantized>(grids[kProduct], j, p0, d);
      Vec d_z = straight<kQuantized>(grids[kSigmoid], j, open.value, d * g) * open.slope;
      d_z = straight<kQuantized>(grids[kGate], j, z, d_z);
      Vec slope = l.m1 ? straight<kQuantized>(grids[kGelu], j, g1, load(m1 + j)) : splat(1.0f);
      slope = straight<kQuantized>(grids[kGelu], j, act.value, slope) * act.slope;
      store(t.slope + at + j, straight<kQuantized>(grids[kY], j, y, slope));
      store(t.d_g + at + j, d * opening);
      store(t.d_z + at + j, d_z);
      store(t.g + at + j, g);
      add(t.sums.b + j, d_z);
    }
  }
}

// u again, and d_y in place of d_g (now with W d_z in it); d_D.
template <bool kQuantized> inline void backward_gelu(const BackwardTask &t, const Block &block) {
  const Padded &n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    const RowNorm row = norm_of(t.f.layer, t.x + at, n);
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec u = rounded<kQuantized>(t.w.grids[kNorm], j, normalized(load(t.x + at + j), row, t.w, j));
      const Vec d_y = load(t.d_g + at + j) * load(t.slope + at + j);
      store(t.u + at + j, u);
      store(t.d_g + at + j, d_y);
      add(t.sums.D + j, u * d_y);
    }
  }
}

// States of the block in one direction.
inline void read_states(const BackwardTask &t, const Block &block, const Direction &direction) {
  const float *from = t.f.saved.states + direction.saved;
  for (Index r = 0; r < block.rows(); ++r)
    read_state(t.state + r * t.n.Cp + direction.column, from + block.token(r, t.n) * t.n.S, t.n);
}

// s_{k-1} of the block's first step, r_{k+1} of its last one.
inline void read_previous(const BackwardTask &t, const Block &block, const Direction &direction) {
  const Padded &n = t.n;
  const Index time = direction.reverse ? block.begin + block.steps : block.begin - 1;
  const float *states = t.f.saved.states + direction.saved;
  for (Index b = 0; b < t.chunk.count; ++b) {
    const Index sequence = t.chunk.first + b;
    float *to = t.previous + b * n.Sp;
    if (time >= 0 && time < n.L) read_state(to, states + (time * n.B + sequence) * n.S, n);
    else if (direction.reverse) std::memset(to, 0, static_cast<size_t>(n.Sp) * sizeof(float));
    else read_state(to, t.f.layer.x0 + sequence * n.S, n);
  }
}

// Which lanes from padded column j on were inside of the grid of B^T u.
inline IVec was_inside(const uint8_t *row, Index j, const Padded &n) {
  const Index left = lanes_left(j, n);
  const uint8_t *from = lanes_at(row, j, n);
  if (left == kLanes) return load_bytes(from);
  uint8_t bytes[kLanes] = {};
  std::memcpy(bytes, from, static_cast<size_t>(left));
  return load_bytes(bytes);
}

// The gradient of a state from that of its code d, and the code in place of the state: d itself where C reads no codes.
template <bool kQuantized> inline Vec backward_read(const Grid &read, Index j, float *s, Vec d) {
  if (!kQuantized || !read.rounds()) return d;
  d = select(is_inside(read, j, load(s)), d * load(read.inverse + j), zero());
  store(s, codes(read, j, load(s)));
  return d;
}

// The same for a whole direction, whose recurrence is the next walk's.
template <bool kQuantized>
inline void backward_read(const BackwardTask &t, const Block &block, const Direction &direction) {
  const Padded &n = t.n;
  if (!kQuantized || !direction.read.rounds()) return;
  for (Index r = 0; r < block.rows(); ++r) {
    float *d = t.mu + r * n.Cp + direction.column, *s = t.state + r * n.Cp + direction.column;
    for (Index j = 0; j < n.Sp; j += kLanes)
      store(d + j, backward_read<kQuantized>(direction.read, j, s + j, load(d + j)));
  }
}

// mu = d + carry; carry = conj(a) mu; d_a += conj(s) mu, s the state before.
inline Rotated adjoint(const BackwardTask &t, Index j, const float *s, float *carry, Vec d_re, Vec d_im) {
  const Index i = j + t.n.Mp;
  const Vec m_re = d_re + load(carry + j), m_im = d_im + load(carry + i);
  const Vec a_re = load(t.w.a_re + j), a_im = load(t.w.a_im + j), s_re = load(s + j), s_im = load(s + i);
  store(carry + j, fma(a_re, m_re, a_im * m_im));
  store(carry + i, fma(a_re, m_im, -(a_im * m_re)));
  add(t.sums.a + j, fma(s_re, m_re, s_im * m_im));
  add(t.sums.a + i, fma(s_re, m_im, -(s_im * m_re)));
  return {m_re, m_im};
}

// Where B^T u of a row was inside of the range of its grid; null where it is not rounded.
template <bool kQuantized> inline const uint8_t *inside_row(const BackwardTask &t, const Block &block, Index r) {
  return kQuantized && t.w.grids[kBu].rounds() ? t.f.saved.inside + block.token(r, t.n) * t.n.S : nullptr;
}

// mu where B^T u was inside, 0 elsewhere.
inline Vec where_inside(const uint8_t *inside, Index j, Vec mu, const Padded &n) {
  return inside ? select(was_inside(inside, j, n), mu, zero()) : mu;
}

// mu_k = d_s_k + conj(a) mu_{k+1}; d_a += conj(s_{k-1}) mu_k. In reverse time. In place of d_s remains the gradient of
// B^T u, which is mu where that was inside of the range of its grid; in place of the states what C read.
template <bool kQuantized> inline void backward_scan(const BackwardTask &t, const Block &block) {
  const Padded &n = t.n;
  const Grid &read = t.w.grids[kStateOut];
  for (Index r = block.rows() - 1; r >= 0; --r) {
    const Index b = r % t.chunk.count;
    const uint8_t *inside = inside_row<kQuantized>(t, block, r);
    float *mu = t.mu + r * n.Cp, *s = t.state + r * n.Cp;
    const float *before = r >= t.chunk.count ? s - t.chunk.count * n.Cp : t.previous + b * n.Sp;
    for (Index j = 0; j < n.Mp; j += kLanes) {
      const Index i = j + n.Mp;
      const Vec d_re = backward_read<kQuantized>(read, j, s + j, load(mu + j));
      const Vec d_im = backward_read<kQuantized>(read, i, s + i, load(mu + i));
      const Rotated m = adjoint(t, j, before, t.carry + b * n.Sp, d_re, d_im);
      store(mu + j, where_inside(inside, j, m.re, n));
      store(mu + i, where_inside(inside, i, m.im, n));
    }
  }
}

// nu_k = d_r_k + conj(a) nu_{k-1}; d_a += conj(r_{k+1}) nu_k. Forwards in time, added to the gradient of B^T u.
template <bool kQuantized>
inline void backward_scan_from_right(const BackwardTask &t, const Block &block, const Direction &right) {
  const Padded &n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index b = r % t.chunk.count;
    const uint8_t *inside = inside_row<kQuantized>(t, block, r);
    float *mu = t.mu + r * n.Cp;
    const float *d = mu + right.column;
    const float *before = r + t.chunk.count < block.rows() ? t.state + (r + t.chunk.count) * n.Cp + right.column
                                                           : t.previous + b * n.Sp;
    for (Index j = 0; j < n.Mp; j += kLanes) {
      const Index i = j + n.Mp;
      const Rotated m = adjoint(t, j, before, t.carry + b * n.Sp, load(d + j), load(d + i));
      add(mu + j, where_inside(inside, j, m.re, n));
      add(mu + i, where_inside(inside, i, m.im, n));
    }
  }
}

// d_x from d_u (B mu, in t.g) and d_y (in t.d_g); d_gain, d_offset.
template <bool kQuantized> inline void backward_norm(const BackwardTask &t, const Block &block) {
  const Padded &n = t.n;
  const bool layer_norm = t.f.layer.layer_norm;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    const float *x = t.x + at;
    float *d_x = t.d_out + at, *d_hat = t.g + at;
    const RowNorm row = norm_of(t.f.layer, x, n);
    Vec total = zero(), along = zero(); // layer norm: sums of d_hat and of d_hat xhat
    for (Index j = 0; j < n.Hp; j += kLanes) {
      Vec d = fma(load(t.d_g + at + j), load(t.w.D + j), load(t.g + at + j));
      d = straight<kQuantized>(t.w.grids[kNorm], j, normalized(load(x + j), row, t.w, j), d);
      const Vec hat = (load(x + j) - row.mean) * row.scale, d_h = d * load(t.w.gain + j);
      add(t.sums.gain + j, d * hat);
      add(t.sums.offset + j, d);
      if (!layer_norm) {
        add(d_x + j, d_h);
        continue;
      }
      store(d_hat + j, d_h);
      total = total + d_h;
      along = fma(d_h, hat, along);
    }
    if (layer_norm) {
      const float mean = sum(total) / static_cast<float>(n.H), slope = sum(along) / static_cast<float>(n.H);
      for (Index j = 0; j < n.Hp; j += kLanes) {
        const Vec hat = (load(x + j) - row.mean) * row.scale;
        add(d_x + j, (load(d_hat + j) - mean - hat * slope) * row.scale);
      }
    }
    write_row(t.f.g_x + block.token(r, n) * n.H, d_x, n.H);
  }
}

// Calls of `step` in the products of `backward_output`, and of `backward_input`.
inline Index output_calls(const Padded &n, Index rows) {
  return calls_of(n.Hp, n.Hp, rows) + calls_of(rows, n.Hp, n.Hp) + calls_of(rows, n.Cp, n.Hp) +
         calls_of(n.Cp, n.Hp, rows);
}
inline Index input_calls(const Padded &n, Index rows) { return calls_of(n.Hp, n.Sp, rows) + calls_of(rows, n.Hp, n.Sp); }

// What the block `next` reads, asked for during the products of a block in `calls` calls.
inline Ahead ahead_of(const BackwardTask &t, const Block &next, Index calls) {
  const Padded &n = t.n;
  Ahead ahead;
  const float *const arrays[] = {t.f.layer.x, t.f.g_out, t.f.saved.y, t.f.saved.z};
  for (const float *array : arrays) want_block(ahead, array, n.H, next, n);
  for (Index i = 0; i < n.directions; ++i) want_block(ahead, t.f.saved.states + i * n.L * n.B * n.S, n.S, next, n);
  want_inside(ahead, t, next);
  want_waiting(ahead, t, next);
  ahead.spread(calls);
  return ahead;
}

// From the gradient of the output to d_y and mu.
template <bool kQuantized> inline void backward_output(const BackwardTask &t, const Block &block, Ahead &ahead) {
  const Padded &n = t.n;
  const Index rows = block.rows();
  const Direction left = from_left(t.w), right = from_right(t.w, n);
  backward_gate<kQuantized>(t, block);
  add_outer(t.g, n.Hp, t.d_z, n.Hp, n.Hp, t.sums.W, rows, ahead);
  multiply(t.d_z, n.Hp, t.w.Wt, t.d_g, n.Hp, rows, true, ahead);
  backward_gelu<kQuantized>(t, block);
  multiply(t.d_g, n.Hp, t.w.Ct, t.mu, n.Cp, rows, false, ahead);
  read_previous(t, block, left);
  read_states(t, block, left);
  backward_scan<kQuantized>(t, block);
  if (n.both_ways()) {
    read_states(t, block, right);
    backward_read<kQuantized>(t, block, right);
  }
  add_outer(t.state, n.Cp, t.d_g, n.Hp, n.Hp, t.sums.C, rows, ahead);
}

// From the gradient of B^T u and d_y to d_x.
template <bool kQuantized> inline void backward_input(const BackwardTask &t, const Block &block, Ahead &ahead) {
  const Padded &n = t.n;
  add_outer(t.u, n.Hp, t.mu, n.Cp, n.Sp, t.sums.B, block.rows(), ahead);
  multiply(t.mu, n.Cp, t.w.Bt, t.g, n.Hp, block.rows(), false, ahead);
  backward_norm<kQuantized>(t, block);
}

// In reverse time: everything in a layer with one direction, else all but what needs nu.
template <bool kQuantized> inline void walk_from_right(const BackwardTask &t) {
  const Padded &n = t.n;
  const Index stride = steps_of(t.chunk);
  for (Index end = n.L; end > 0; end -= stride) {
    const Block block = block_before(end, stride, t.chunk);
    const BackwardTask here = at_block(t, block);
    const Index rows = block.rows(), calls = output_calls(n, rows) + (n.both_ways() ? 0 : input_calls(n, rows));
    Ahead ahead = ahead_of(t, block_before(block.begin, stride, t.chunk), calls);
    backward_output<kQuantized>(here, block, ahead);
    if (!n.both_ways()) backward_input<kQuantized>(here, block, ahead);
  }
}

// The second of two walks, forwards in time: nu, and what needs it.
template <bool kQuantized> inline void walk_from_left(const BackwardTask &t) {
  const Padded &n = t.n;
  const Index stride = steps_of(t.chunk);
  const Direction right = from_right(t.w, n);
  for (Index begin = 0; begin < n.L; begin += stride) {
    const Block block = block_from(begin, stride, n.L, t.chunk), next = block_from(begin + stride, stride, n.L, t.chunk);
    const BackwardTask here = at_block(t, block);
    Ahead ahead;
    want_block(ahead, t.f.layer.x, n.H, next, n);
    want_block(ahead, t.f.saved.states + right.saved, n.S, next, n);
    want_inside(ahead, t, next);
    want_waiting(ahead, t, next);
    ahead.spread(input_calls(n, block.rows()));
    read_and_norm<kQuantized>(here, block);
    read_states(here, block, right);
    read_previous(here, block, right);
    backward_scan_from_right<kQuantized>(here, block, right);
    backward_input<kQuantized>(here, block, ahead);
  }
}

template <bool kQuantized> inline void backward_task(const BackwardTask &t) {
  const Padded &n = t.n;
  for (Index b = 0; b < t.chunk.count; ++b)
    read_state(t.carry + b * n.Sp, t.f.g_last + (t.chunk.first + b) * n.S, n);
  walk_from_right<kQuantized>(t);
  for (Index b = 0; b < t.chunk.count; ++b)
    write_state(t.f.g_x0 + (t.chunk.first + b) * n.S, t.carry + b * n.Sp, n);
  if (!n.both_ways()) return;
  std::memset(t.carry, 0, static_cast<size_t>(t.chunk.count * n.Sp) * sizeof(float));
  walk_from_left<kQuantized>(t);
}

struct BackwardCall {
  const LayerBackward &f;
  const Padded &n;
  const Weights &w;
  const float *g_sum, *g_sum_square;
  int chunks;
  float *sums; // (chunks, gradients)
};

inline void run_backward(void *data, int i) {
  const BackwardCall &call = *static_cast<const BackwardCall *>(data);
  const Padded &n = call.n;
  const Chunk c = chunk(n.B, call.chunks, i);
  const Index waits = waiting_rows(n, c);
  Arena arena(backward_floats(n, c.count)), waiting(waits * (2 * n.Hp + n.Cp) + 3 * 16, Fill::kNone);
  const Index h = steps_of(c) * c.count * n.Hp, s = steps_of(c) * c.count * n.Cp;
  const Gradients sums = take_gradients(n, arena);
  BackwardTask t{call.f, n, call.w, call.g_sum, call.g_sum_square, c, arena.take(h), arena.take(h), arena.take(h),
                 arena.take(h), arena.take(h), arena.take(s), waiting.take(waits * n.Hp), waiting.take(waits * n.Hp),
                 waiting.take(waits * n.Cp), arena.take(2 * n.Hp), arena.take(c.count * n.Sp),
                 arena.take(c.count * n.Sp), arena.take(2 * c.count * n.Hp), sums};
  read_masks(t.masks, call.f.layer, n, c);
  if (call.f.layer.grids.rounded) backward_task<true>(t);
  else backward_task<false>(t);
  copy(call.sums + i * gradients_floats(n), sums.B, gradients_floats(n));
  stream_end();
}

inline void add_tasks(const BackwardCall &call) {
  const Index size = gradients_floats(call.n);
  for (int i = 1; i < call.chunks; ++i)
    for (Index j = 0; j < size; ++j) call.sums[j] += call.sums[i * size + j];
}

inline void layer_backward(const LayerBackward &f, const Runner &runner) {
  const Padded n(f.layer.shape);
  const int chunks = chunks_of(n.B, runner.threads);
  Arena arena(weights_floats(n) + 2 * Arena::round(n.Hp) + chunks * gradients_floats(n) + 64);
  const Weights w = read_weights(f.layer, n, true, arena);
  const float *g_sum = read_channels(f.g_sum, n, arena), *g_sum_square = read_channels(f.g_sum_square, n, arena);
  BackwardCall call{f, n, w, g_sum, g_sum_square, chunks, arena.take(chunks * gradients_floats(n))};
  runner.run(runner.context, chunks, run_backward, &call);
  add_tasks(call);
  Arena view(gradients_floats(n) + 64);
  const Gradients total = take_gradients(n, view);
  copy(total.B, call.sums, gradients_floats(n));
  write_hs(f.g_B, total.B, n);
  write_ch(f.g_C, total.C, n);
  write_hh(f.g_W, total.W, n);
  write_state(f.g_a, total.a, n);
  write_row(f.g_gain, total.gain, n.H);
  write_row(f.g_offset, total.offset, n.H);
  write_row(f.g_D, total.D, n.H);
  write_row(f.g_b, total.b, n.H);
  stream_end();
}

} // namespace QS5_ISA
} // namespace qs5
