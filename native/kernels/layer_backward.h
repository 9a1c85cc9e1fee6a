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
  float *x, *u, *g, *d_z, *slope;       // rows of Hp; slope: m1 gelu'(y), later where u was inside of its grid
  float *state;                         // rows of Cp
  float *d_out, *d_g, *mu;              // rows of Hp, Hp, Cp; all time steps if there are two directions
                                        // d_out: gradient of the residual sum
  float *row;                           // four rows of Hp
  RowNorm *norms;                       // rows
  float *previous;                      // sequences of Sp: the states before the block, as its direction runs
  float *carry;                         // sequences of Sp: conj(a) mu_{k+1}, or conj(a) nu_{k-1}
  float *masks;                         // (2, count, Hp)
  Gradients sums;
};

inline Index backward_floats(const Padded &n, Index count) {
  const Index rows = steps_of({0, count}) * count;
  return rows * (5 * n.Hp + n.Cp + 2) + 2 * count * (n.Sp + n.Hp) + 4 * n.Hp + gradients_floats(n) + 16 * 16;
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
  if (t.w.grids[kBu].rounds()) want_block(ahead, t.f.saved.inside, t.n.Fp, block, t.n);
}

inline BackwardTask at_block(const BackwardTask &t, const Block &block) {
  BackwardTask here = t;
  here.d_out = rows_of_block(t.d_out, t.n.Hp, block, t.n);
  here.d_g = rows_of_block(t.d_g, t.n.Hp, block, t.n);
  here.mu = rows_of_block(t.mu, t.n.Cp, block, t.n);
  return here;
}

inline void add(float *to, Vec v) { store(to, load(to) + v); }

// g and m1 gelu'(y), from y.
inline void redo_gelu(const BackwardTask &t, const DualRow &g, const float *mask) {
  const Layer &l = t.f.layer;
  g.begin(t.w.grids[kY]);
  g.apply_gelu(l.gelu);
  g.round(t.w.grids[kGelu]);
  if (!l.m1) return;
  g.scale(mask);
  g.round(t.w.grids[kGelu]);
}

// sigmoid(z) and its derivative, from z.
inline void redo_gate(const BackwardTask &t, const DualRow &opening) {
  opening.begin(t.w.grids[kGate]);
  opening.apply_gate(t.f.layer.gate);
  opening.round(t.w.grids[kSigmoid]);
}

// m2 g sigmoid(z) and m2, from the product.
inline void redo_product(const BackwardTask &t, const DualRow &p, const float *mask) {
  p.begin(t.w.grids[kProduct]);
  if (!t.f.layer.m2) return;
  p.scale(mask);
  p.round(t.w.grids[kProduct]);
}

// The gradient of the residual sum x + p from that of the layer's output, and of the sums over the output.
inline void backward_residual(const BackwardTask &t, const float *x, const float *p, float *d_out) {
  const Grid grid = t.w.grids[kResidual];
  const float *g_sum = t.g_sum, *g_sum_square = t.g_sum_square;
  for (Index j = 0; j < t.n.Hp; j += kLanes) {
    const Vec real = load(x + j) + load(p + j), out = rounded(grid, j, real);
    const Vec d = load(d_out + j) + fma(out, 2.0f * load(g_sum_square + j), load(g_sum + j));
    store(d_out + j, straight(grid, j, real, d));
  }
}

// From y, z and the output's gradient: g, d_z, d sigmoid(z) (in d_g), m1 gelu'(y) (in slope), d_out; and d_b.
inline void backward_gate(const BackwardTask &t, const Block &block) {
  const Padded n = t.n;
  const DualRow opening{t.row, t.row + n.Hp, n.Hp}, product{t.row + 2 * n.Hp, t.row + 3 * n.Hp, n.Hp};
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp, token = block.token(r, n) * n.H;
    const float *m1 = t.masks + (r % t.chunk.count) * n.Hp, *m2 = m1 + t.chunk.count * n.Hp;
    float *x = t.x + at, *d_out = t.d_out + at, *d_g = t.d_g + at, *d_z = t.d_z + at, *d_b = t.sums.b;
    const DualRow g{t.g + at, t.slope + at, n.Hp};
    read_row(x, t.f.layer.x + token, n.H);
    store(d_out + n.Hp - kLanes, zero()); // this buffer is not zeroed
    read_row(d_out, t.f.g_out + token, n.H);
    read_row(g.value, t.f.saved.y + token, n.H);
    read_row(opening.value, t.f.saved.z + token, n.H);
    redo_gelu(t, g, m1);
    redo_gate(t, opening);
    for (Index j = 0; j < n.Hp; j += kLanes) store(product.value + j, load(g.value + j) * load(opening.value + j));
    redo_product(t, product, m2);
    backward_residual(t, x, product.value, d_out);
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec d = load(d_out + j) * load(product.slope + j), value = d * load(g.value + j) * load(opening.slope + j);
      store(d_g + j, d * load(opening.value + j));
      store(d_z + j, value);
      add(d_b + j, value);
    }
  }
}

// u again, and where it was inside of its grid (in slope), from x. Past the end of a sequence both are 0.
inline void redo_norm(const BackwardTask &t, const Block &block, Index r) {
  const Index at = r * t.n.Hp;
  const DualRow u{t.u + at, t.slope + at, t.n.Hp};
  t.norms[r] = norm_of(t.f.layer, t.x + at, t.n);
  normalize_row(u.value, t.x + at, t.norms[r], t.w, t.n.Hp);
  u.begin(t.w.grids[kNorm]);
  if (is_padding(t.f.layer, block, r)) u.clear();
}

// u again, and d_y in place of d_g (now with W d_z in it); d_D.
inline void backward_gelu(const BackwardTask &t, const Block &block) {
  const Padded n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    float *d_y = t.d_g + at, *d_D = t.sums.D;
    scale_row(t.slope + at, d_y, n.Hp);
    redo_norm(t, block, r);
    for (Index j = 0; j < n.Hp; j += kLanes) add(d_D + j, load(t.u + at + j) * load(d_y + j));
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
  const Padded n = t.n;
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

// A row of gradients of states from those of their codes d, and the codes in place of the states: nothing to do where C
// reads no codes.
inline void backward_read_row(Grid read, float *s, float *d, Index n) {
  if (!read.rounds()) return;
  for (Index j = 0; j < n; j += kLanes) {
    store(d + j, where(is_inside(read, j, load(s + j)), load(d + j) * load(read.inverse + j)));
    store(s + j, codes(read, j, load(s + j)));
  }
}

// The same for a whole direction, whose recurrence is the next walk's.
inline void backward_read(const BackwardTask &t, const Block &block, const Direction &direction) {
  const Padded n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Cp + direction.column;
    backward_read_row(direction.read, t.state + at, t.mu + at, n.Sp);
  }
}

// mu = d + carry, in place of d; carry = conj(a) mu; d_a += conj(s) mu, s the state before.
inline void adjoint_row(const BackwardTask &t, const float *s, float *carry, float *d) {
  const float *a_re = t.w.a_re, *a_im = t.w.a_im;
  float *d_a = t.sums.a;
  for (Index j = 0, i = t.n.Mp; j < t.n.Mp; j += kLanes, i += kLanes) {
    const Vec m_re = load(d + j) + load(carry + j), m_im = load(d + i) + load(carry + i);
    const Vec re = load(a_re + j), im = load(a_im + j), s_re = load(s + j), s_im = load(s + i);
    store(carry + j, fma(re, m_re, im * m_im));
    store(carry + i, fma(re, m_im, -(im * m_re)));
    add(d_a + j, fma(s_re, m_re, s_im * m_im));
    add(d_a + i, fma(s_re, m_im, -(s_im * m_re)));
    store(d + j, m_re);
    store(d + i, m_im);
  }
}

// Where B^T u of a row was inside of the range of its grid; null where it is not rounded.
inline const uint8_t *inside_row(const BackwardTask &t, const Block &block, Index r) {
  return t.w.grids[kBu].rounds() ? t.f.saved.inside + block.token(r, t.n) * t.n.Fp : nullptr;
}

// A row of mu where B^T u was inside, 0 elsewhere.
inline void keep_inside(const uint8_t *inside, float *mu, const Padded &n) {
  if (!inside) return;
  for (Index half = 0; half < 2; ++half)
    for (Index j = 0; j < n.Mp; j += kLanes) {
      float *d = mu + half * n.Mp + j;
      store(d, where(load_mask(inside + half * n.Fp / 2 + j), load(d)));
    }
}

// mu_k = d_s_k + conj(a) mu_{k+1}; d_a += conj(s_{k-1}) mu_k. In reverse time. In place of d_s remains the gradient of
// B^T u, which is mu where that was inside of the range of its grid; in place of the states what C read.
inline void backward_scan(const BackwardTask &t, const Block &block) {
  const Padded n = t.n;
  for (Index r = block.rows() - 1; r >= 0; --r) {
    const Index b = r % t.chunk.count;
    float *mu = t.mu + r * n.Cp, *s = t.state + r * n.Cp;
    const float *before = r >= t.chunk.count ? s - t.chunk.count * n.Cp : t.previous + b * n.Sp;
    backward_read_row(t.w.grids[kStateOut], s, mu, n.Sp);
    adjoint_row(t, before, t.carry + b * n.Sp, mu);
    keep_inside(inside_row(t, block, r), mu, n);
  }
}

// nu_k = d_r_k + conj(a) nu_{k-1}; d_a += conj(r_{k+1}) nu_k. Forwards in time, added to the gradient of B^T u.
inline void backward_scan_from_right(const BackwardTask &t, const Block &block, const Direction &right) {
  const Padded n = t.n;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index b = r % t.chunk.count;
    float *mu = t.mu + r * n.Cp, *nu = mu + right.column;
    const float *before = r + t.chunk.count < block.rows() ? t.state + (r + t.chunk.count) * n.Cp + right.column
                                                           : t.previous + b * n.Sp;
    adjoint_row(t, before, t.carry + b * n.Sp, nu);
    keep_inside(inside_row(t, block, r), nu, n);
    add_row(nu, mu, n.Sp);
  }
}

// d_x from d_u = B mu + D d_y (B mu in t.g, d_y in t.d_g), where u was inside; d_gain, d_offset.
inline void backward_norm(const BackwardTask &t, const Block &block) {
  const Padded n = t.n;
  const bool layer_norm = t.f.layer.layer_norm;
  const float *gain = t.w.gain, *D = t.w.D;
  float *d_gain = t.sums.gain, *d_offset = t.sums.offset;
  for (Index r = 0; r < block.rows(); ++r) {
    const Index at = r * n.Hp;
    const float *x = t.x + at, *d_y = t.d_g + at, *slope = t.slope + at;
    float *d_x = t.d_out + at, *d_hat = t.g + at;
    const RowNorm row = t.norms[r];
    Vec total = zero(), along = zero(); // layer norm: sums of d_hat and of d_hat xhat
    for (Index j = 0; j < n.Hp; j += kLanes) {
      const Vec d = fma(load(d_y + j), load(D + j), load(d_hat + j)) * load(slope + j);
      const Vec hat = (load(x + j) - row.mean) * row.scale, d_h = d * load(gain + j);
      add(d_gain + j, d * hat);
      add(d_offset + j, d);
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
  const Padded n = t.n;
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
inline void backward_output(const BackwardTask &t, const Block &block, Ahead &ahead) {
  const Padded n = t.n;
  const Index rows = block.rows();
  const Direction left = from_left(t.w), right = from_right(t.w, n);
  backward_gate(t, block);
  add_outer(t.g, n.Hp, t.d_z, n.Hp, n.Hp, t.sums.W, rows, ahead);
  multiply(t.d_z, n.Hp, t.w.Wt, t.d_g, n.Hp, rows, true, ahead);
  backward_gelu(t, block);
  multiply(t.d_g, n.Hp, t.w.Ct, t.mu, n.Cp, rows, false, ahead);
  read_previous(t, block, left);
  read_states(t, block, left);
  backward_scan(t, block);
  if (n.both_ways()) {
    read_states(t, block, right);
    backward_read(t, block, right);
  }
  add_outer(t.state, n.Cp, t.d_g, n.Hp, n.Hp, t.sums.C, rows, ahead);
}

// From the gradient of B^T u and d_y to d_x.
inline void backward_input(const BackwardTask &t, const Block &block, Ahead &ahead) {
  const Padded n = t.n;
  add_outer(t.u, n.Hp, t.mu, n.Cp, n.Sp, t.sums.B, block.rows(), ahead);
  multiply(t.mu, n.Cp, t.w.Bt, t.g, n.Hp, block.rows(), false, ahead);
  backward_norm(t, block);
}

// In reverse time: everything in a layer with one direction, else all but what needs nu.
inline void walk_from_right(const BackwardTask &t) {
  const Padded n = t.n;
  const Index stride = steps_of(t.chunk);
  for (Index end = n.L; end > 0; end -= stride) {
    const Block block = block_before(end, stride, t.chunk);
    const BackwardTask here = at_block(t, block);
    const Index rows = block.rows(), calls = output_calls(n, rows) + (n.both_ways() ? 0 : input_calls(n, rows));
    Ahead ahead = ahead_of(t, block_before(block.begin, stride, t.chunk), calls);
    backward_output(here, block, ahead);
    if (!n.both_ways()) backward_input(here, block, ahead);
  }
}

// The second of two walks, forwards in time: nu, and what needs it.
inline void walk_from_left(const BackwardTask &t) {
  const Padded n = t.n;
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
    for (Index r = 0; r < block.rows(); ++r) {
      read_row(t.x + r * n.Hp, t.f.layer.x + block.token(r, n) * n.H, n.H);
      redo_norm(here, block, r);
    }
    read_states(here, block, right);
    read_previous(here, block, right);
    backward_scan_from_right(here, block, right);
    backward_input(here, block, ahead);
  }
}

inline void backward_task(const BackwardTask &t) {
  const Padded n = t.n;
  for (Index b = 0; b < t.chunk.count; ++b)
    read_state(t.carry + b * n.Sp, t.f.g_last + (t.chunk.first + b) * n.S, n);
  walk_from_right(t);
  for (Index b = 0; b < t.chunk.count; ++b)
    write_state(t.f.g_x0 + (t.chunk.first + b) * n.S, t.carry + b * n.Sp, n);
  if (!n.both_ways()) return;
  std::memset(t.carry, 0, static_cast<size_t>(t.chunk.count * n.Sp) * sizeof(float));
  walk_from_left(t);
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
  RowNorm *norms = reinterpret_cast<RowNorm *>(arena.take(2 * steps_of(c) * c.count));
  BackwardTask t{call.f, n, call.w, call.g_sum, call.g_sum_square, c, arena.take(h), arena.take(h), arena.take(h),
                 arena.take(h), arena.take(h), arena.take(s), waiting.take(waits * n.Hp), waiting.take(waits * n.Hp),
                 waiting.take(waits * n.Cp), arena.take(4 * n.Hp), norms, arena.take(c.count * n.Sp),
                 arena.take(c.count * n.Sp), arena.take(2 * c.count * n.Hp), sums};
  read_masks(t.masks, call.f.layer, n, c);
  backward_task(t);
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
