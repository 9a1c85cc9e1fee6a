/* The float32 twin of the integer engine, to compare with: the paper's sMNIST structure (batch norm folded, half-GLU,
 * mean pool), the same blocks of rows, the same tiles of the products, sums in registers, every loop on whole vectors,
 * polynomials for exp. Compile with -O3 -march=native. Sizes must be multiples of 16; the input has one channel. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16, MOST = 8, BLOCK = 48, MAX_H = 256, MAX_S = 512 };
typedef float vec __attribute__((vector_size(64), aligned(64)));
typedef float loose __attribute__((vector_size(64), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(64), aligned(64)));

#define INLINE static inline __attribute__((always_inline))

typedef struct {
  const float *gain, *offset, *B, *re, *im, *C, *D, *W, *bias; /* products packed [O / 16][I][16] */
} layer;

typedef struct {
  int layers, H, modes;
  const float *encoder, *encoder_bias;
  layer layer[16];
  float x[BLOCK][MAX_H], n[BLOCK][MAX_H], s[BLOCK][MAX_S], g[BLOCK][MAX_H];
} engine;

INLINE vec load(const float *p) { return *(const loose *)(const void *)p; }
INLINE void store(float *p, vec v) { *(loose *)(void *)p = v; }
INLINE vec all(float a) { return a - (vec){0}; }

INLINE vec choose(ivec where, vec a, vec b) { return (vec)(((ivec)a & where) | ((ivec)b & ~where)); }

/* 2^t by its integer part and a polynomial of degree 5 on -1/2..1/2; relative error below 3e-6. */
INLINE vec exp2_fast(vec t) {
  const vec magic = all(12582912.0f), big = t + magic; /* 1.5 2^23: rounds to nearest */
  const vec f = t - (big - magic);
  vec p = all(1.3333558146e-3f);
  p = p * f + all(9.6181291076e-3f);
  p = p * f + all(5.5504108665e-2f);
  p = p * f + all(2.4022650696e-1f);
  p = p * f + all(6.9314718056e-1f);
  p = p * f + all(1.0f);
  return (vec)((ivec)p + ((ivec)big << 23));
}

/* 1 / (1 + e^-t) for |t| < 80. */
INLINE vec sigmoid(vec t) {
  const vec limit = all(80.0f);
  t = choose(t > limit, limit, t);
  t = choose(t < -limit, -limit, t);
  return all(1.0f) / (all(1.0f) + exp2_fast(t * all(-1.4426950409f)));
}

INLINE vec gelu(vec y) { return y * sigmoid((y + all(0.044715f) * y * y * y) * all(1.5957691216f)); }

enum kind { PLAIN, DIRECT_GELU, GATE };

/* What happens to a sum: nothing; + D n, then GELU; + bias, then gate and residual. */
INLINE void finish(engine *e, const layer *l, enum kind kind, int row, int at, vec v) {
  if (kind == PLAIN) store(&e->s[row][at], v);
  if (kind == DIRECT_GELU) store(&e->g[row][at], gelu(v + load(l->D + at) * load(&e->n[row][at])));
  if (kind == GATE)
    store(&e->x[row][at], load(&e->x[row][at]) + load(&e->g[row][at]) * sigmoid(v + load(l->bias + at)));
}

INLINE void tile(engine *e, const layer *l, enum kind kind, const float *w, const float *in, int stride, int I, int row,
                 int rows, int vector, int vectors) {
  vec sums[MOST * MOST], kept[MOST * MOST];
  w += (size_t)vector * (size_t)I * LANES;
  in += row * stride;
#pragma GCC unroll 8
  for (int i = 0; i < rows * vectors; ++i) sums[i] = (vec){0};
  for (int k = 0; k < I; ++k, w += LANES, ++in) {
    vec weights[MOST];
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) weights[c] = load(w + c * I * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < vectors; ++c) sums[r * vectors + c] += weights[c] * all(in[r * stride]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) kept[r * vectors + c] = sums[r * vectors + c];
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < vectors; ++c) finish(e, l, kind, row + r, LANES * (vector + c), kept[r * vectors + c]);
}

INLINE void columns(engine *e, const layer *l, enum kind kind, const float *w, const float *in, int stride, int I, int total,
                    int vector, int vectors, int most) {
  int row = 0;
  for (; row + most <= total; row += most) tile(e, l, kind, w, in, stride, I, row, most, vector, vectors);
  for (; row + 2 <= total; row += 2) tile(e, l, kind, w, in, stride, I, row, 2, vector, vectors);
  for (; row < total; ++row) tile(e, l, kind, w, in, stride, I, row, 1, vector, vectors);
}

INLINE void product(engine *e, const layer *l, enum kind kind, const float *w, const float *in, int stride, int I, int O,
                    int rows) {
  int at = 0;
  const int vectors = O / LANES;
  if (rows == 1) {
    for (; at + 8 <= vectors; at += 8) tile(e, l, kind, w, in, stride, I, 0, 1, at, 8);
    for (; at + 6 <= vectors; at += 6) tile(e, l, kind, w, in, stride, I, 0, 1, at, 6);
  }
  for (; at + 4 <= vectors && (vectors - at) % 3; at += 4) columns(e, l, kind, w, in, stride, I, rows, at, 4, 6);
  for (; at + 3 <= vectors; at += 3) columns(e, l, kind, w, in, stride, I, rows, at, 3, 8);
  for (; at < vectors; ++at) columns(e, l, kind, w, in, stride, I, rows, at, 1, 8);
}

static void input_product(engine *e, const layer *l, int rows) {
  product(e, l, PLAIN, l->B, e->n[0], MAX_H, e->H, 2 * e->modes, rows);
}
static void output_product(engine *e, const layer *l, int rows) {
  product(e, l, DIRECT_GELU, l->C, e->s[0], MAX_S, 2 * e->modes, e->H, rows);
}
static void gate_product(engine *e, const layer *l, int rows) {
  product(e, l, GATE, l->W, e->g[0], MAX_H, e->H, e->H, rows);
}

static void norm(engine *e, const layer *l, int rows) {
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < e->H; i += LANES)
      store(&e->n[r][i], load(&e->x[r][i]) * load(l->gain + i) + load(l->offset + i));
}

/* Sequences of `steps` rows each; the state (2 modes) of sequence b is at state + b stride. In place in e->s. */
static void recurrence(engine *e, const layer *l, int sequences, int steps, float *state, int64_t stride) {
  for (int b = 0; b < sequences; ++b)
    for (int m = 0; m < e->modes; m += LANES) {
      float *q = state + b * stride;
      const vec re = load(l->re + m), im = load(l->im + m);
      vec x = load(q + m), y = load(q + e->modes + m);
      for (int k = b * steps; k < (b + 1) * steps; ++k) {
        const vec next = re * x - im * y + load(&e->s[k][m]);
        y = re * y + im * x + load(&e->s[k][e->modes + m]);
        x = next;
        store(&e->s[k][m], x);
        store(&e->s[k][e->modes + m], y);
      }
      store(q + m, x);
      store(q + e->modes + m, y);
    }
}

static void encode(engine *e, const float *u, int rows, int64_t first) {
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < e->H; i += LANES)
      store(&e->x[first + r][i], load(e->encoder + i) * all(u[r]) + load(e->encoder_bias + i));
}

/* Steps begin .. begin + steps - 1 of `sequences` sequences, which have `length` steps of input each. A record holds the
 * states of all layers, then the sum for the pool. */
static void run_block(engine *e, const float *u, int64_t length, int64_t begin, int sequences, int steps, float *records,
                      int64_t record) {
  const int rows = sequences * steps;
  for (int b = 0; b < sequences; ++b) encode(e, u + b * length + begin, steps, b * steps);
  for (int i = 0; i < e->layers; ++i) {
    const layer *l = &e->layer[i];
    norm(e, l, rows);
    input_product(e, l, rows);
    recurrence(e, l, sequences, steps, records + (int64_t)i * 2 * e->modes, record);
    output_product(e, l, rows);
    gate_product(e, l, rows);
  }
  for (int r = 0; r < rows; ++r) {
    float *total = records + r / steps * record + (int64_t)e->layers * 2 * e->modes;
    for (int i = 0; i < e->H; i += LANES) store(total + i, load(total + i) + load(&e->x[r][i]));
  }
}

/* u (sequences, length); `block` rows at most go through together. */
void float_run(engine *e, const float *u, int64_t sequences, int64_t length, int64_t block, float *records) {
  const int64_t record = (int64_t)e->layers * 2 * e->modes + e->H, rows = block < BLOCK ? block : BLOCK;
  const int64_t group = length < rows ? rows / length : 1;
  for (int64_t first = 0; first < sequences; first += group)
    for (int64_t begin = 0; begin < length; begin += rows) {
      const int64_t n = sequences - first < group ? sequences - first : group;
      const int64_t steps = length - begin < rows ? length - begin : rows;
      run_block(e, u + first * length, length, begin, (int)n, (int)steps, records + first * record, record);
    }
}

static const float *take(const float **from, int64_t count) {
  float *copy = aligned_alloc(64, (size_t)(count + LANES) / LANES * LANES * sizeof(float));
  if (copy) memcpy(copy, *from, (size_t)count * sizeof(float));
  *from += count;
  return copy;
}

/* weight (O, I) -> [O / 16][I][16] */
static const float *take_packed(const float **from, int O, int I) {
  float *packed = aligned_alloc(64, (size_t)O * (size_t)I * sizeof(float));
  for (int o = 0; packed && o < O; ++o)
    for (int i = 0; i < I; ++i) packed[(o / LANES * I + i) * LANES + o % LANES] = (*from)[o * I + i];
  *from += O * I;
  return packed;
}

/* Parameters in the order of float_engine.py. Never freed: a benchmark makes one. */
engine *float_new(int layers, int H, int modes, const float *from) {
  if (layers > 16 || H % LANES || H > MAX_H || modes % LANES || 2 * modes > MAX_S) return NULL;
  engine *e = aligned_alloc(64, (sizeof *e + 63) / 64 * 64);
  if (!e) return NULL;
  memset(e, 0, sizeof *e);
  e->layers = layers, e->H = H, e->modes = modes;
  e->encoder = take(&from, H);
  e->encoder_bias = take(&from, H);
  for (int i = 0; i < layers; ++i) {
    layer *l = &e->layer[i];
    l->gain = take(&from, H), l->offset = take(&from, H);
    l->B = take_packed(&from, 2 * modes, H);
    l->re = take(&from, modes), l->im = take(&from, modes);
    l->C = take_packed(&from, H, 2 * modes);
    l->D = take(&from, H);
    l->W = take_packed(&from, H, H);
    l->bias = take(&from, H);
  }
  return e;
}
