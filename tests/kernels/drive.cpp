// Runs the whole-layer kernel and the prefix tree on many sizes: every array has memory of its own, exactly as large as it must be,
// so that a sanitizer sees any step outside. Everything that the kernel gives must have been written and be finite.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels.h"

using namespace qs5;

namespace {

// Both threads take every second task.
void run(void *, int n, void (*task)(void *, int), void *data) {
  const auto half = [=](int first) {
    for (int i = first; i < n; i += 2) task(data, i);
  };
  std::thread other(half, 1);
  half(0);
  other.join();
}

class Arrays {
public:
  // Normal numbers times `scale`.
  float *random(Index n, float scale) {
    float *p = filled(n, 0.0f);
    for (Index i = 0; i < n; ++i) p[i] = scale * normal_(generator_);
    return p;
  }
  float *filled(Index n, float value) {
    floats_.push_back(std::make_unique<float[]>(static_cast<size_t>(n)));
    for (Index i = 0; i < n; ++i) floats_.back()[static_cast<size_t>(i)] = value;
    return floats_.back().get();
  }
  // An array that the kernel has to write.
  float *result(Index n) {
    results_.push_back({filled(n, NAN), n});
    return results_.back().first;
  }
  // 1, 2, .. L, 1, ..
  int32_t *lengths(Index n, Index L) {
    lengths_.push_back(std::make_unique<int32_t[]>(static_cast<size_t>(n)));
    for (Index i = 0; i < n; ++i) lengths_.back()[static_cast<size_t>(i)] = static_cast<int32_t>(i % L + 1);
    return lengths_.back().get();
  }
  uint8_t *bytes(Index n) {
    bytes_.push_back(std::make_unique<uint8_t[]>(static_cast<size_t>(n)));
    return bytes_.back().get();
  }
  bool finite() const {
    for (const auto &[p, n] : results_)
      for (Index i = 0; i < n; ++i)
        if (!std::isfinite(p[i])) return false;
    return true;
  }

private:
  std::mt19937 generator_{1};
  std::normal_distribution<float> normal_;
  std::vector<std::unique_ptr<float[]>> floats_;
  std::vector<std::unique_ptr<int32_t[]>> lengths_;
  std::vector<std::unique_ptr<uint8_t[]>> bytes_;
  std::vector<std::pair<float *, Index>> results_;
};

// Steps of 1/16 from -128 to 127 at every site.
Grids grids(Arrays &to, Index width) {
  float *table = to.filled(kSites * 4 * width, 0.0f);
  const float rows[] = {16.0f, 1.0f / 16.0f, -128.0f, 127.0f};
  for (Index i = 0; i < kSites * 4 * width; ++i) table[i] = rows[i / width % 4];
  return {table, width, (1 << kSites) - 1};
}

Layer layer(Arrays &to, const Shape &n, bool quantized, bool padded) {
  const Index S = 2 * n.M;
  Layer l{};
  l.shape = n, l.layer_norm = n.B % 2 == 0, l.epsilon = 1e-6f, l.gelu = kGeluTanh, l.gate = kSoftSigmoid;
  l.x = to.random(n.L * n.B * n.H, 1.0f), l.x0 = to.random(n.B * S, 1.0f);
  l.gain = to.random(n.H, 1.0f), l.offset = to.random(n.H, 1.0f);
  l.a = to.random(S, 0.3f), l.B = to.random(n.H * S, 0.3f), l.C = to.random(n.directions * S * n.H, 0.3f);
  l.D = to.random(n.H, 1.0f), l.W = to.random(n.H * n.H, 0.3f), l.b = to.random(n.H, 0.3f);
  l.m1 = to.filled(n.B * n.H, 1.0f), l.m2 = to.filled(n.B * n.H, 1.0f);
  l.lengths = padded ? to.lengths(n.B, n.L) : nullptr;
  l.grids = quantized ? grids(to, n.H > S ? n.H : S) : Grids{nullptr, 0, 0};
  return l;
}

bool runs(const Shape &n, bool quantized, bool padded) {
  Arrays all;
  const Index S = 2 * n.M, tokens = n.L * n.B;
  const Layer l = layer(all, n, quantized, padded);
  const Saved saved{all.result(n.directions * tokens * S), all.result(tokens * n.H), all.result(tokens * n.H),
                    quantized ? all.bytes(tokens * 2 * flags_of(n.M)) : nullptr};
  const Runner runner{nullptr, 2, run};
  for (const Saved &kept : {Saved{}, saved}) {
    const LayerForward forward{l, kept, all.result(tokens * n.H), all.result(n.H), all.result(n.H), all.result(n.B * S)};
    kernels().layer_forward(forward, runner);
  }
  const LayerBackward backward{
      l, saved,
      all.random(tokens * n.H, 1.0f), all.random(n.H, 0.1f), all.random(n.H, 0.1f), all.random(n.B * S, 1.0f),
      all.result(tokens * n.H), all.result(n.H), all.result(n.H), all.result(S), all.result(n.H * S),
      all.result(n.directions * S * n.H), all.result(n.H), all.result(n.H * n.H), all.result(n.H), all.result(n.B * S)};
  kernels().layer_backward(backward, runner);
  return all.finite();
}

// The prefix tree, forward with and without what the gradient needs, and that.
bool prefix_runs(const Shape &n, bool reverse) {
  Arrays all;
  const Index S = 2 * n.M, tokens = n.L * n.B;
  Index rows = n.L;
  for (Index left = n.L; left > 0; left /= 2) rows += left;
  const float *a = all.random(S, 0.5f), *b = all.random(tokens * S, 1.0f);
  float *saved = all.result(prefix_blocks(n.B) * rows * S * kPrefixBlock);
  const PrefixGrid four{4, 1.0f / 7.5f}, eight{8, 1.0f / 127.0f}, one{1, 1.0f};
  const Runner runner{nullptr, 2, run};
  for (float *kept : {static_cast<float *>(nullptr), saved})
    kernels().prefix_forward({n, reverse, four, eight, a, b, all.result(tokens * S), kept}, runner);
  kernels().prefix_backward({n, reverse, four, eight, eight, one, a, saved, all.random(tokens * S, 1.0f), all.result(S),
                             all.result(tokens * S)},
                            runner);
  return all.finite();
}

} // namespace

int main() {
  // L, B, H, M: shorter and longer than a block, more sequences than a block has rows, rows with and without padding.
  const Index sizes[][4] = {{1, 1, 1, 1}, {2, 3, 7, 5}, {23, 2, 16, 8}, {150, 3, 18, 9}, {3, 203, 5, 3}, {9, 40, 33, 17}};
  int done = 0;
  for (const auto &n : sizes) {
    if (!prefix_runs({n[0], n[1], n[2], n[3], 1}, n[0] % 2 == 0)) {
      std::printf("not finite: prefix, L %td, B %td, M %td\n", n[0], n[1], n[3]);
      return 1;
    }
    for (Index directions = 1; directions <= 2; ++directions)
      for (const bool quantized : {false, true})
        for (const bool padded : {false, true}) {
          if (!runs({n[0], n[1], n[2], n[3], directions}, quantized, padded)) {
            std::printf("not finite: L %td, B %td, H %td, M %td, directions %td\n", n[0], n[1], n[2], n[3], directions);
            return 1;
          }
          ++done;
        }
  }
  std::printf("%s: %d layers, %td trees\n", kernels().name, done, sizeof(sizes) / sizeof(sizes[0]));
}
