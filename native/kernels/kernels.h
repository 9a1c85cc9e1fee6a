// The interface between the foreign-function handlers (ffi.cpp) and the kernels (compute.cpp), which are compiled once
// for each instruction set. Plain structs only: nothing here may depend on the width of a vector.
//
// Letters as in qs5.notation: L time, B batch, H features, M complex modes, S = 2M packed re, im. All arrays are dense,
// row-major, float32, time-major (L, B, .) unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qs5 {

using Index = std::ptrdiff_t;

struct Shape {
  Index L, B, H, M;
  Index directions; // of the recurrence of a layer: 2 if there is one from the right, too
};

// Runs task(data, i) for i = 0 .. n-1 on the threads there are, and returns when all are done.
struct Runner {
  void* context;
  int threads;
  void (*run)(void* context, int n, void (*task)(void* data, int i), void* data);
};

// Places in a layer where a value may be rounded to a grid, in the order of the forward pass.
enum Site {
  kNorm,
  kBu,
  kState,
  kStateOut,
  kStateReverse,
  kStateReverseOut,
  kY,
  kGelu,
  kGate,
  kSigmoid,
  kProduct,
  kResidual,
  kSites
};

// Grids of the sites: table (kSites, 4, width): step inverses, steps, lowest code, highest code (first entry counts).
// Bit i of `rounded` says whether site i has a grid at all.
struct Grids {
  const float* table;
  Index width;
  int64_t rounded;
};

enum Gelu : int { kGeluTanh = 0, kQGelu = 1 };
enum Gate : int { kSoftSigmoid = 0, kHardSigmoid = 1 };

// What both passes of a layer read.
//   u = gain x + offset, or layer norm with that gain and offset;   s_k = a s_{k-1} + B^T u_k
//   y = C^T s + D u;   g = m1 gelu(y);   z = W^T g + b;   out = x + m2 g sigmoid(z)
// Two directions: r_k = a r_{k+1} + B^T u_k as well, from 0 behind the end, and y = C^T [s; r] + D u.
// Sequences with lengths: u = 0 from the end of each one on.
struct Layer {
  Shape shape;
  bool layer_norm;
  float epsilon;  // layer norm only
  int gelu, gate;
  const float *x;             // (L, B, H)
  const float *gain, *offset; // (H)
  const float *a;             // (S)
  const float *B;             // (H, S)
  const float *C;             // (directions S, H); meets codes instead of values where kState(Reverse)Out is rounded
  const float *D;             // (H)
  const float *W;             // (H, H)
  const float *b;             // (H)
  const float *m1, *m2;       // (B, H), or null: no dropout
  const int32_t *lengths;     // (B), or null: all sequences have L steps
  const float *x0;            // (B, S), before the first step; the direction from the right begins with 0
  Grids grids;
};

// Flags for the M modes of a half of a packed state: as many for every width of a vector.
inline Index flags_of(Index M) { return (M + 15) / 16 * 16; }

// What the forward pass leaves for the backward pass. Null pointers: not wanted.
struct Saved {
  float *states;   // (directions, L, B, S)
  float *y, *z;    // (L, B, H), before rounding
  uint8_t *inside; // (L, B, 2, flags_of(M)), not 0: B^T u was inside the range of its grid. Quantized layers only
};

struct LayerForward {
  Layer layer;
  Saved saved;
  float *out;              // (L, B, H)
  float *sum, *sum_square; // (H), of out over (L, B)
  float *last;             // (B, S), the state after the last step, from the left
};

struct LayerBackward {
  Layer layer;
  Saved saved;
  const float *g_out, *g_sum, *g_sum_square, *g_last;
  float *g_x, *g_gain, *g_offset, *g_a, *g_B, *g_C, *g_D, *g_W, *g_b, *g_x0;
};

// s_k = Q(a s_{k-1} + v_k), from the end if `reverse`. Q rounds to codes times step where `step` is not null.
struct Scan {
  Shape shape;
  bool reverse;
  const float *a;             // (S)
  const float *v;             // (L, B, S)
  const float *x0;            // (B, S)
  const float *step;          // (S) or null
  float high;
  float *states;              // (L, B, S)
};

// mu_k = g_k + conj(a) mu_{k+1};  g_v = mu;  g_a = sum conj(s_{k-1}) mu_k;  g_x0 = conj(a) mu_1.
struct ScanBackward {
  Shape shape;
  bool reverse;
  const float *a, *states, *x0, *g;
  float *g_v, *g_a, *g_x0;
};

// The grid of an operand in a quantized prefix: its step is the largest magnitude times inverse_edge. bits 0: no grid.
struct PrefixGrid {
  int bits;
  float inverse_edge;
};

// What is smaller counts as zero, and a largest magnitude of zero as one.
constexpr float kPrefixZero = 0x1p-109f;

// Sequences side by side in what the forward pass of a prefix leaves for the backward pass.
constexpr Index kPrefixBlock = 16;
inline Index prefix_blocks(Index B) { return (B + kPrefixBlock - 1) / kPrefixBlock; }

// States of x_k = a x_{k-1} + b_k from 0, from the end if `reverse`, by a prefix tree whose products round their
// operands; see prefix.h. Of the tree's levels: L, L/2, L/4, ... elements, `rows` in all.
struct Prefix {
  Shape shape;
  bool reverse;
  PrefixGrid a_grid, state; // of the powers of a, and of what they multiply
  const float *a;           // (S)
  const float *b;           // (L, B, S)
  float *states;            // (L, B, S)
  float *saved;             // (blocks, rows + L, S, kPrefixBlock), or null: not wanted
};

struct PrefixBackward {
  Shape shape;
  bool reverse;
  PrefixGrid a_grid, state;
  PrefixGrid back, a_back; // of both operands and the cotangent, in products with a state and of two powers
  const float *a, *saved, *g;
  float *g_a, *g_b;
};

struct Kernels {
  const char *name;
  void (*layer_forward)(const LayerForward &, const Runner &);
  void (*layer_backward)(const LayerBackward &, const Runner &);
  void (*scan_forward)(const Scan &, const Runner &);
  void (*scan_backward)(const ScanBackward &, const Runner &);
  void (*prefix_forward)(const Prefix &, const Runner &);
  void (*prefix_backward)(const PrefixBackward &, const Runner &);
};

// The kernels for the widest instruction set that this processor has, at most QS5_NATIVE_ISA if that is set.
const Kernels &kernels();

} // namespace qs5
