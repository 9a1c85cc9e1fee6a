// The diagonal recurrence alone, for layers that the fused kernel does not take, and its gradient. One pass each.
#pragma once

#include "layer.h"

namespace qs5 {
namespace QS5_ISA {

struct ScanCall {
  const Scan &f;
  const Padded &n;
  const float *a;
  Grid grid;
  int chunks;
};

// Time step number k of the recurrence, counted in the order in which it runs.
inline Index time_of(Index k, Index L, bool reverse) { return reverse ? L - 1 - k : k; }

inline void run_scan(void *data, int task) {
  const ScanCall &call = *static_cast<const ScanCall *>(data);
  const Padded &n = call.n;
  const Chunk c = chunk(n.B, call.chunks, task);
  Arena arena((c.count + 1) * n.Sp + 32);
  float *states = arena.take(c.count * n.Sp), *v = arena.take(n.Sp);
  for (Index b = 0; b < c.count; ++b) read_state(states + b * n.Sp, call.f.x0 + (c.first + b) * n.S, n);
  for (Index k = 0; k < n.L; ++k)
    for (Index b = 0; b < c.count; ++b) {
      const Index at = (time_of(k, n.L, call.f.reverse) * n.B + c.first + b) * n.S;
      read_state(v, call.f.v + at, n);
      advance_row(call.a, call.a + n.Mp, call.grid, states + b * n.Sp, v, n);
      write_state(call.f.states + at, states + b * n.Sp, n);
    }
  stream_end();
}

inline Grid symmetric_grid(const float *step, float high, const Padded &n, Arena &arena) {
  if (step == nullptr) return {nullptr, nullptr, 0.0f, 0.0f};
  float *steps = arena.take(n.Sp), *inverse = arena.take(n.Sp);
  read_state(steps, step, n);
  for (Index j = 0; j < n.Sp; ++j) inverse[j] = steps[j] == 0.0f ? 0.0f : 1.0f / steps[j];
  return {inverse, steps, -high, high};
}

inline void scan_forward(const Scan &f, const Runner &runner) {
  const Padded n(f.shape);
  Arena arena(3 * n.Sp + 64);
  float *a = arena.take(n.Sp);
  read_state(a, f.a, n);
  ScanCall call{f, n, a, symmetric_grid(f.step, f.high, n, arena), chunks_of(n.B, runner.threads)};
  runner.run(runner.context, call.chunks, run_scan, &call);
}

struct ScanBackwardCall {
  const ScanBackward &f;
  const Padded &n;
  const float *a;
  int chunks;
  float *sums; // (chunks, Sp): gradient of a
};

// mu = g + carry, carry = conj(a) mu, sums += conj(before) mu.
inline void scan_backward_row(const float *a, float *carry, float *mu, const float *before, float *sums, Index Mp) {
  for (Index j = 0; j < Mp; j += kLanes) {
    const Index i = j + Mp;
    const Vec m_re = load(mu + j) + load(carry + j), m_im = load(mu + i) + load(carry + i);
    const Vec s_re = load(before + j), s_im = load(before + i);
    store(mu + j, m_re);
    store(mu + i, m_im);
    store(carry + j, fma(load(a + j), m_re, load(a + i) * m_im));
    store(carry + i, fma(load(a + j), m_im, -(load(a + i) * m_re)));
    store(sums + j, load(sums + j) + fma(s_re, m_re, s_im * m_im));
    store(sums + i, load(sums + i) + fma(s_re, m_im, -(s_im * m_re)));
  }
}

inline void run_scan_backward(void *data, int task) {
  const ScanBackwardCall &call = *static_cast<const ScanBackwardCall *>(data);
  const Padded &n = call.n;
  const Chunk c = chunk(n.B, call.chunks, task);
  Arena arena((c.count + 2) * n.Sp + 64);
  float *carry = arena.take(c.count * n.Sp), *mu = arena.take(n.Sp), *before = arena.take(n.Sp);
  for (Index k = n.L - 1; k >= 0; --k)
    for (Index b = 0; b < c.count; ++b) {
      const Index at = (time_of(k, n.L, call.f.reverse) * n.B + c.first + b) * n.S;
      const Index step = (call.f.reverse ? -n.B : n.B) * n.S;
      read_state(mu, call.f.g + at, n);
      read_state(before, k == 0 ? call.f.x0 + (c.first + b) * n.S : call.f.states + at - step, n);
      scan_backward_row(call.a, carry + b * n.Sp, mu, before, call.sums + task * n.Sp, n.Mp);
      write_state(call.f.g_v + at, mu, n);
    }
  for (Index b = 0; b < c.count; ++b) write_state(call.f.g_x0 + (c.first + b) * n.S, carry + b * n.Sp, n);
  stream_end();
}

inline void scan_backward(const ScanBackward &f, const Runner &runner) {
  const Padded n(f.shape);
  const int chunks = chunks_of(n.B, runner.threads);
  Arena arena((chunks + 1) * n.Sp + 64);
  float *a = arena.take(n.Sp), *sums = arena.take(chunks * n.Sp);
  read_state(a, f.a, n);
  ScanBackwardCall call{f, n, a, chunks, sums};
  runner.run(runner.context, chunks, run_scan_backward, &call);
  for (int i = 1; i < chunks; ++i)
    for (Index j = 0; j < n.Sp; ++j) sums[j] += sums[i * n.Sp + j];
  write_state(f.g_a, sums, n);
  stream_end();
}

} // namespace QS5_ISA
} // namespace qs5
