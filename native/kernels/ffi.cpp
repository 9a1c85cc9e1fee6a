// Handlers that XLA calls: buffers to pointers, and XLA's own threads as the runner. Shapes are checked in Python, but
// for the two arrays whose layout is the kernels' own.
#include "ffi.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace qs5 {
namespace {

namespace ffi = xla::ffi;
using F32 = ffi::Buffer<ffi::F32>;
using I32 = ffi::Buffer<ffi::S32>;
using OutF32 = ffi::Result<ffi::Buffer<ffi::F32>>;
using OutU8 = ffi::Result<ffi::Buffer<ffi::U8>>;

// Tasks are claimed one by one, by the calling thread as well. A helper that starts late finds nothing left to claim,
// so nobody ever waits for a thread that has not begun.
struct Tasks {
  int n;
  void (*task)(void *, int);
  void *data;
  std::atomic<int> next{0};
  int done = 0;
  std::mutex mutex;
  std::condition_variable finished;

  void work() {
    for (int i = next.fetch_add(1); i < n; i = next.fetch_add(1)) {
      task(data, i);
      const std::lock_guard<std::mutex> lock(mutex);
      if (++done == n) finished.notify_all();
    }
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return done == n; });
  }
};

void run(void *context, int n, void (*task)(void *, int), void *data) {
  auto *pool = static_cast<ffi::ThreadPool *>(context);
  auto tasks = std::make_shared<Tasks>();
  tasks->n = n, tasks->task = task, tasks->data = data;
  const int64_t threads = pool->num_threads();
  for (int64_t i = 1; i < threads && i < n; ++i) pool->Schedule([tasks] { tasks->work(); });
  tasks->work();
  tasks->wait();
}

Runner runner_of(ffi::ThreadPool &pool) {
  const int64_t threads = pool.num_threads();
  return {&pool, threads < 1 ? 1 : static_cast<int>(threads), run};
}

// Arrays that are not wanted have no elements.
const float *optional(const F32 &buffer) { return buffer.element_count() == 0 ? nullptr : buffer.typed_data(); }
const int32_t *optional(const I32 &buffer) { return buffer.element_count() == 0 ? nullptr : buffer.typed_data(); }
float *optional(OutF32 &buffer) { return buffer->element_count() == 0 ? nullptr : buffer->typed_data(); }

// Refuses an array that Python laid out otherwise than the kernels do; an empty one is not wanted.
ffi::Error check_layout(const char *name, std::size_t elements, Index expected) {
  if (elements == 0 || static_cast<Index>(elements) == expected) return ffi::Error::Success();
  return ffi::Error::InvalidArgument(std::string(name) + ": expected " + std::to_string(expected) + " elements, got " +
                                     std::to_string(elements) + ": qs5.kernels and native/kernels/kernels.h differ");
}

ffi::Error check_inside(const Shape &n, std::size_t elements) {
  return check_layout("inside", elements, n.L * n.B * 2 * flags_of(n.M));
}

ffi::Error check_prefix(const Shape &n, std::size_t elements) {
  Index rows = n.L;
  for (Index length = n.L; length > 0; length /= 2) rows += length;
  return check_layout("saved", elements, prefix_blocks(n.B) * rows * 2 * n.M * kPrefixBlock);
}

// C has S rows for each direction.
Shape layer_shape(const F32 &x, const F32 &a, const F32 &C) {
  const auto d = x.dimensions();
  const Index S = static_cast<Index>(a.element_count());
  return {d[0], d[1], d[2], S / 2, C.dimensions()[0] / S};
}

struct LayerAttributes {
  bool layer_norm;
  float epsilon;
  int64_t gelu, gate, rounded;
};

Layer layer_of(const LayerAttributes &at, const F32 &x, const F32 &gain, const F32 &offset, const F32 &a, const F32 &B,
               const F32 &C, const F32 &D, const F32 &W, const F32 &b, const F32 &m1, const F32 &m2,
               const I32 &lengths, const F32 &x0, const F32 &grids) {
  const auto width = grids.dimensions();
  return {layer_shape(x, a, C),
          at.layer_norm,
          at.epsilon,
          static_cast<int>(at.gelu),
          static_cast<int>(at.gate),
          x.typed_data(),
          gain.typed_data(),
          offset.typed_data(),
          a.typed_data(),
          B.typed_data(),
          C.typed_data(),
          D.typed_data(),
          W.typed_data(),
          b.typed_data(),
          optional(m1),
          optional(m2),
          optional(lengths),
          x0.typed_data(),
          {grids.typed_data(), width[2], at.rounded}};
}

ffi::Error layer_forward(ffi::ThreadPool pool, bool layer_norm, float epsilon, int64_t gelu, int64_t gate,
                         int64_t rounded, F32 x, F32 gain, F32 offset, F32 a, F32 B, F32 C, F32 D, F32 W, F32 b, F32 m1,
                         F32 m2, I32 lengths, F32 x0, F32 grids, OutF32 out, OutF32 sum, OutF32 sum_square, OutF32 last,
                         OutF32 states, OutF32 y, OutF32 z, OutU8 inside) {
  const Layer layer = layer_of({layer_norm, epsilon, gelu, gate, rounded}, x, gain, offset, a, B, C, D, W, b, m1, m2,
                               lengths, x0, grids);
  if (auto error = check_inside(layer.shape, inside->element_count()); error.failure()) return error;
  uint8_t *bytes = inside->element_count() == 0 ? nullptr : inside->typed_data();
  const LayerForward call{layer,
                          {optional(states), optional(y), optional(z), bytes},
                          out->typed_data(),
                          sum->typed_data(),
                          sum_square->typed_data(),
                          last->typed_data()};
  kernels().layer_forward(call, runner_of(pool));
  return ffi::Error::Success();
}

ffi::Error layer_backward(ffi::ThreadPool pool, bool layer_norm, float epsilon, int64_t gelu, int64_t gate,
                          int64_t rounded, F32 x, F32 gain, F32 offset, F32 a, F32 B, F32 C, F32 D, F32 W, F32 b,
                          F32 m1, F32 m2, I32 lengths, F32 x0, F32 grids, F32 states, F32 y, F32 z,
                          ffi::Buffer<ffi::U8> inside, F32 g_out, F32 g_sum, F32 g_sum_square, F32 g_last,
                          OutF32 g_x, OutF32 g_gain, OutF32 g_offset, OutF32 g_a, OutF32 g_B, OutF32 g_C, OutF32 g_D,
                          OutF32 g_W, OutF32 g_b, OutF32 g_x0) {
  const Layer layer = layer_of({layer_norm, epsilon, gelu, gate, rounded}, x, gain, offset, a, B, C, D, W, b, m1, m2,
                               lengths, x0, grids);
  if (auto error = check_inside(layer.shape, inside.element_count()); error.failure()) return error;
  // The gradient only reads what was saved.
  const Saved saved{states.typed_data(), y.typed_data(), z.typed_data(), inside.typed_data()};
  const LayerBackward call{layer,
                           saved,
                           g_out.typed_data(),
                           g_sum.typed_data(),
                           g_sum_square.typed_data(),
                           g_last.typed_data(),
                           g_x->typed_data(),
                           g_gain->typed_data(),
                           g_offset->typed_data(),
                           g_a->typed_data(),
                           g_B->typed_data(),
                           g_C->typed_data(),
                           g_D->typed_data(),
                           g_W->typed_data(),
                           g_b->typed_data(),
                           g_x0->typed_data()};
  kernels().layer_backward(call, runner_of(pool));
  return ffi::Error::Success();
}

Shape scan_shape(const F32 &v) {
  const auto d = v.dimensions();
  return {d[0], d[1], 1, d[2] / 2, 1};
}

ffi::Error scan_forward(ffi::ThreadPool pool, bool reverse, F32 a, F32 v, F32 x0, F32 step, F32 high, OutF32 states) {
  const float *steps = optional(step);
  const Scan call{scan_shape(v), reverse,        a.typed_data(),      v.typed_data(), x0.typed_data(), steps,
                  high.typed_data()[0], states->typed_data()};
  kernels().scan_forward(call, runner_of(pool));
  return ffi::Error::Success();
}

ffi::Error scan_backward(ffi::ThreadPool pool, bool reverse, F32 a, F32 states, F32 x0, F32 g, OutF32 g_v, OutF32 g_a,
                         OutF32 g_x0) {
  const ScanBackward call{scan_shape(g), reverse, a.typed_data(), states.typed_data(), x0.typed_data(),
                          g.typed_data(), g_v->typed_data(), g_a->typed_data(), g_x0->typed_data()};
  kernels().scan_backward(call, runner_of(pool));
  return ffi::Error::Success();
}

// For each grid its bits and the largest magnitude's place on it, in steps.
PrefixGrid grid_of(int64_t bits, float edge) { return {static_cast<int>(bits), 1.0f / edge}; }

ffi::Error prefix_forward(ffi::ThreadPool pool, bool reverse, int64_t a_bits, float a_edge, int64_t state_bits,
                          float state_edge, F32 a, F32 b, OutF32 states, OutF32 saved) {
  if (auto error = check_prefix(scan_shape(b), saved->element_count()); error.failure()) return error;
  const Prefix call{scan_shape(b), reverse, grid_of(a_bits, a_edge), grid_of(state_bits, state_edge), a.typed_data(),
                    b.typed_data(), states->typed_data(), optional(saved)};
  kernels().prefix_forward(call, runner_of(pool));
  return ffi::Error::Success();
}

ffi::Error prefix_backward(ffi::ThreadPool pool, bool reverse, int64_t a_bits, float a_edge, int64_t state_bits,
                           float state_edge, int64_t back_bits, float back_edge, int64_t a_back_bits,
                           float a_back_edge, F32 a, F32 saved, F32 g, OutF32 g_a, OutF32 g_b) {
  if (auto error = check_prefix(scan_shape(g), saved.element_count()); error.failure()) return error;
  const PrefixBackward call{scan_shape(g),
                            reverse,
                            grid_of(a_bits, a_edge),
                            grid_of(state_bits, state_edge),
                            grid_of(back_bits, back_edge),
                            grid_of(a_back_bits, a_back_edge),
                            a.typed_data(),
                            saved.typed_data(),
                            g.typed_data(),
                            g_a->typed_data(),
                            g_b->typed_data()};
  kernels().prefix_backward(call, runner_of(pool));
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(layer_forward_handler, layer_forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<bool>("layer_norm")
                           .Attr<float>("epsilon")
                           .Attr<int64_t>("gelu")
                           .Attr<int64_t>("gate")
                           .Attr<int64_t>("rounded")
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<I32>().Arg<F32>().Arg<F32>()
                           .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
                           .Ret<ffi::Buffer<ffi::U8>>());

XLA_FFI_DEFINE_HANDLER(layer_backward_handler, layer_backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<bool>("layer_norm")
                           .Attr<float>("epsilon")
                           .Attr<int64_t>("gelu")
                           .Attr<int64_t>("gate")
                           .Attr<int64_t>("rounded")
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<I32>().Arg<F32>().Arg<F32>()
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<ffi::Buffer<ffi::U8>>()
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
                           .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
                           .Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER(scan_forward_handler, scan_forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<bool>("reverse")
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
                           .Ret<F32>());

XLA_FFI_DEFINE_HANDLER(scan_backward_handler, scan_backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<bool>("reverse")
                           .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
                           .Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER(prefix_forward_handler, prefix_forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<bool>("reverse")
                           .Attr<int64_t>("a_bits")
                           .Attr<float>("a_edge")
                           .Attr<int64_t>("state_bits")
                           .Attr<float>("state_edge")
                           .Arg<F32>().Arg<F32>()
                           .Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER(prefix_backward_handler, prefix_backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attr<bool>("reverse")
                           .Attr<int64_t>("a_bits")
                           .Attr<float>("a_edge")
                           .Attr<int64_t>("state_bits")
                           .Attr<float>("state_edge")
                           .Attr<int64_t>("back_bits")
                           .Attr<float>("back_edge")
                           .Attr<int64_t>("a_back_bits")
                           .Attr<float>("a_back_edge")
                           .Arg<F32>().Arg<F32>().Arg<F32>()
                           .Ret<F32>().Ret<F32>());

} // namespace

const Handler *handlers(int *count) {
  static const Handler all[] = {
      {"qs5_layer_forward", reinterpret_cast<void *>(+layer_forward_handler)},
      {"qs5_layer_backward", reinterpret_cast<void *>(+layer_backward_handler)},
      {"qs5_scan_forward", reinterpret_cast<void *>(+scan_forward_handler)},
      {"qs5_scan_backward", reinterpret_cast<void *>(+scan_backward_handler)},
      {"qs5_prefix_forward", reinterpret_cast<void *>(+prefix_forward_handler)},
      {"qs5_prefix_backward", reinterpret_cast<void *>(+prefix_backward_handler)},
  };
  *count = 6;
  return all;
}

const char *instruction_set() { return kernels().name; }

} // namespace qs5
