/* AVX-512 VNNI: products, with the ops behind them done before the codes leave the registers. */
#include "lanes512.h"
#include "rows.h"

enum { MOST_PAIRS = 4, MOST_SUMS = 24 };

/* -- inputs -------------------------------------------------------------------------------------------------------- */

/* Codes as unsigned bytes: signed ones plus 128, and the bias makes up for it. */
static void inputs8(const qs5_info *info, const void *row, int64_t n, uint8_t *to) {
  const __m512i flip = _mm512_set1_epi8(info->type == QS5_I8 ? (char)-128 : 0);
  for (int64_t i = 0; i < n; i += 64) _mm512_storeu_si512(to + i, _mm512_xor_si512(load512((const uint8_t *)row + i), flip));
}

/* Where row 0 of the inputs is, how far it is to the next, and what makes signed bytes unsigned. */
typedef struct {
  const uint8_t *at;
  int64_t stride;
  int flip;
} rows_in;

static rows_in prepare8(const qs5_op *op, const qs5_block *block) {
  const int two = op->inputs > op->x->channels;
  /* A single row is flipped on the way into the product: no pass over memory. */
  if (!two && (op->x->type == QS5_U8 || block->rows == 1))
    return (rows_in){block->at[op->in[0]], op->x->stride, op->x->type == QS5_I8};
  uint8_t *to = block->inputs;
  const int64_t stride = block->wide_stride;
  for (int64_t row = 0; row < block->rows; ++row, to += stride) {
    inputs8(op->x, qs5_row(block, op->x, op->in[0], row), op->x->channels, to);
    if (two) inputs8(op->y, qs5_row(block, op->y, op->in[1], row), op->y->channels, to + op->x->channels);
  }
  return (rows_in){block->inputs, stride, 0};
}

static rows_in prepare16(const qs5_op *op, const qs5_block *block) {
  const int64_t stride = block->wide_stride;
  for (int64_t row = 0; row < block->rows; ++row) inputs16(op, block, row, (int16_t *)block->inputs + row * stride);
  return (rows_in){block->inputs, stride * (int64_t)sizeof(int16_t), 0};
}

QS5_INLINE __m512i broadcast(const uint8_t *four_bytes) {
  int32_t word;
  __builtin_memcpy(&word, four_bytes, sizeof word);
  return _mm512_set1_epi32(word);
}

/* -- before and after the sums ------------------------------------------------------------------------------------- */

typedef struct {
  __m512i lower, upper; /* in pairs */
} pair;

QS5_INLINE __m512i shifted(__m512i v, __m512i shift) {
  const __m512i one = _mm512_set1_epi32(1);
  return _mm512_srav_epi32(_mm512_add_epi32(v, _mm512_sllv_epi32(one, _mm512_sub_epi32(shift, one))), shift);
}

/* clip(requantize(u D, D_M, D_shift)) of 32 channels. u D fits 16 bits where u has 8, and u D D_M 31 bits. */
QS5_INLINE pair direct8(const qs5_op *op, const void *u_row, int64_t at) {
  const __m512i uD = _mm512_mullo_epi16(load_words(op->u->type, u_row, at), load512(op->D16 + at));
  const __m512i M = load512(op->M16 + at), low = _mm512_mullo_epi16(uD, M), high = _mm512_mulhi_epi16(uD, M);
  return (pair){shifted(_mm512_unpacklo_epi16(low, high), load512(op->shift2 + at)),
                shifted(_mm512_unpackhi_epi16(low, high), load512(op->shift2 + at + 16))};
}

/* The same for u of 16 bits, one vector: u as 32-bit lanes. */
static __m512i direct16(const qs5_op *op, __m512i u, int64_t at) {
  const __m512i v = raise512(_mm512_mullo_epi32(u, load512(op->D + at)), load512(op->direct.left + at));
  return rescale512(v, factors(load512(op->direct.packed + at)));
}

QS5_INLINE pair direct(const qs5_op *op, const void *u_row, int64_t at) {
  if (op->D16) return direct8(op, u_row, at);
  const __m512i u = load512((const int16_t *)u_row + at), zero = _mm512_setzero_si512();
  const __m512i sign = op->u->type == QS5_U16 ? zero : _mm512_srai_epi16(u, 15);
  return (pair){direct16(op, _mm512_unpacklo_epi16(u, sign), at), direct16(op, _mm512_unpackhi_epi16(u, sign), at + 16)};
}

/* Sums [row][vector] begin with the bias and what bypasses the product. */
QS5_INLINE void begin(const qs5_op *op, const qs5_block *block, int64_t row, int rows, int64_t at, int pairs, __m512i *sums) {
#pragma GCC unroll 8
  for (int p = 0; p < pairs; ++p) {
    const __m512i bias0 = load512(op->bias + at + 32 * p), bias1 = load512(op->bias + at + 32 * p + 16);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) sums[2 * (r * pairs + p)] = bias0, sums[2 * (r * pairs + p) + 1] = bias1;
  }
  if (op->kind != QS5_OUTPUT) return;
  const __m512i limit = _mm512_set1_epi32(op->direct.clipped ? 1 << 24 : INT32_MAX);
  const __m512i least = _mm512_sub_epi32(_mm512_setzero_si512(), limit);
#pragma GCC unroll 8
  for (int p = 0; p < pairs; ++p)
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      pair v = direct(op, qs5_row(block, op->u, op->in[2], row + r), at + 32 * p);
      __m512i *to = &sums[2 * (r * pairs + p)];
      if (op->direct.clipped) v = (pair){clamp512(v.lower, least, limit), clamp512(v.upper, least, limit)};
      to[0] = _mm512_add_epi32(to[0], v.lower);
      to[1] = _mm512_add_epi32(to[1], v.upper);
    }
}

QS5_INLINE __m512i raised(const qs5_op *op, __m512i v, int64_t at) {
  const __m512i left = load512(op->scale.left + at);
  return op->scale.clipped ? raise512(v, left) : _mm512_sllv_epi32(v, left);
}

/* requantize and saturate: words [row][pair]. */
QS5_INLINE void end(const qs5_op *op, int rows, int64_t at, int pairs, __m512i *sums, __m512i *words) {
  const qs5_range to = range_of(op->to);
  if (op->scale.raised) {
#pragma GCC unroll 24
    for (int i = 0; i < 2 * rows * pairs; ++i) sums[i] = raised(op, sums[i], at + i % (2 * pairs) * 16);
  }
#pragma GCC unroll 8
  for (int p = 0; p < pairs; ++p) {
    const qs5_scaling f0 = scaling(load512(op->scale.packed + at + 32 * p));
    const qs5_scaling f1 = scaling(load512(op->scale.packed + at + 32 * p + 16));
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const __m512i *from = &sums[2 * (r * pairs + p)];
      words[r * pairs + p] = narrow_pair(to, scale512(from[0], f0), scale512(from[1], f1));
    }
  }
}

/* Where an op writes; at: NULL if nobody reads it. */
typedef struct {
  unsigned char *at;
  int64_t stride;
  int size;
} rows_out;

QS5_INLINE rows_out out_of(const qs5_op *op, const qs5_block *block, int64_t row) {
  return (rows_out){op->kept ? qs5_row_out(op, block, row) : NULL, op->to->stride, op->to->size};
}

QS5_INLINE void put(rows_out to, int64_t r, int64_t at, __m512i v) {
  if (to.at) store_words(to.size, to.at + r * to.stride, at, v);
}

/* The input of a multiplication or an addition that comes from memory. */
typedef struct {
  const unsigned char *at;
  int64_t stride;
  qs5_type type;
} other_in;

QS5_INLINE other_in other_of(const qs5_op *op, const qs5_block *block, int64_t row) {
  const qs5_info *info = op->other ? op->y : op->x;
  return (other_in){qs5_row(block, info, op->in[op->other], row), info->stride, info->type};
}

QS5_INLINE __m512i get(other_in from, int64_t r, int64_t at) { return load_words(from.type, from.at + r * from.stride, at); }

/* The ops behind the product on words [row][pair]. `has` says which there are: a constant where this is inlined, so that
 * their constants stay in registers over the rows. */
enum { HAS_TABLE = 1, HAS_MULTIPLY = 2, HAS_ADD = 4, HAS_AFFINE = 8 };

QS5_INLINE void follow(const qs5_op *op, const qs5_block *block, int64_t row, int rows, int64_t at, int pairs,
                       const __m512i *words, int has) {
  const qs5_tail t = op->tail;
  const rows_out out = out_of(op, block, row);
  const rows_out table_out = has & HAS_TABLE ? out_of(t.table, block, row) : out;
  const rows_out multiply_out = has & HAS_MULTIPLY ? out_of(t.multiply, block, row) : out;
  const rows_out add_out = has & HAS_ADD ? out_of(t.add, block, row) : out;
  const rows_out affine_out = has & HAS_AFFINE ? out_of(t.affine, block, row) : out;
  const qs5_look_up table = has & HAS_TABLE ? look_up_of(t.table) : (qs5_look_up){0};
  const qs5_shifted multiply = has & HAS_MULTIPLY ? shifted_of(t.multiply) : (qs5_shifted){0};
  const qs5_shifted add = has & HAS_ADD ? shifted_of(t.add) : (qs5_shifted){0};
  const other_in multiply_in = has & HAS_MULTIPLY ? other_of(t.multiply, block, row) : (other_in){0};
  const other_in add_in = has & HAS_ADD ? other_of(t.add, block, row) : (other_in){0};
  for (int p = 0; p < pairs; ++p, at += 32) {
    const qs5_affine affine = has & HAS_AFFINE ? affine_of(t.affine, at) : (qs5_affine){0};
    for (int r = 0; r < rows; ++r) {
      __m512i v = words[r * pairs + p];
      put(out, r, at, v);
      if (has & HAS_TABLE) put(table_out, r, at, v = look_up_words(&table, v));
      if (has & HAS_MULTIPLY) put(multiply_out, r, at, v = multiply_words(&multiply, get(multiply_in, r, at), v));
      if (has & HAS_ADD) put(add_out, r, at, v = add_words(&add, get(add_in, r, at), v));
      if (has & HAS_AFFINE) put(affine_out, r, at, v = affine_words(&affine, v));
    }
  }
}

#define QS5_FOLLOW(has)                                                                                                \
  case has: follow(op, block, row, rows, at, pairs, words, has); break;

static __attribute__((noinline)) void follow_any(const qs5_op *op, const qs5_block *block, int64_t row, int rows, int64_t at,
                                                 int pairs, const __m512i *words) {
  const qs5_tail *t = &op->tail;
  const int has = (t->table ? HAS_TABLE : 0) | (t->multiply ? HAS_MULTIPLY : 0) | (t->add ? HAS_ADD : 0) |
                  (t->affine ? HAS_AFFINE : 0);
  switch (has) {
    QS5_FOLLOW(1) QS5_FOLLOW(2) QS5_FOLLOW(3) QS5_FOLLOW(4) QS5_FOLLOW(5) QS5_FOLLOW(6) QS5_FOLLOW(7) QS5_FOLLOW(8)
    QS5_FOLLOW(9) QS5_FOLLOW(10) QS5_FOLLOW(11) QS5_FOLLOW(12) QS5_FOLLOW(13) QS5_FOLLOW(14) QS5_FOLLOW(15)
  }
}

/* -- products: out = requantize(W x + bias [+ direct]) ------------------------------------------------------------- */

/* A copy that compilers do not see through: so they give the sums registers of their own for the loop, and spill before and
 * behind it. */
QS5_INLINE void move(__m512i *to, const __m512i *from, int count) {
#pragma GCC unroll 24
  for (int i = 0; i < count; ++i) __asm__("" : "=v"(to[i]) : "0"(from[i]));
}

/* The sum of the bytes of a row that enter a product, in every lane. */
QS5_INLINE __m512i sum_of_inputs(const uint8_t *in, int64_t bytes, __m512i flip) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < bytes; i += 64) {
    const __mmask64 mask = bytes - i < 64 ? ((__mmask64)1 << (bytes - i)) - 1 : ~(__mmask64)0;
    const __m512i x = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, in + i), flip);
    sum = _mm512_dpbusd_epi32(sum, x, _mm512_maskz_set1_epi8(mask, 1));
  }
  sum = _mm512_add_epi32(sum, _mm512_shuffle_i64x2(sum, sum, 0x4E));
  sum = _mm512_add_epi32(sum, _mm512_shuffle_i64x2(sum, sum, 0xB1));
  sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, 0x4E));
  return _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, 0xB1));
}

/* Sum f is that of x (v mod 2^(bits (f + 1))), v being a byte of `fields` weights. Less sum f - 1 it is 2^(bits f) times that
 * of field f alone. All but the last field have an offset, which `offset`, as often as the inputs say, takes away. */
QS5_INLINE void separate(__m512i *sums, int fields, int bits, __m512i offset) {
#pragma GCC unroll 4
  for (int f = fields - 1; f > 0; --f) sums[f] = _mm512_srai_epi32(_mm512_sub_epi32(sums[f], sums[f - 1]), (unsigned)(bits * f));
#pragma GCC unroll 4
  for (int f = 0; f < fields - 1; ++f) sums[f] = _mm512_sub_epi32(sums[f], offset);
}

/* Adds one row times `pairs` times 32 outputs of weights of `bits` bits, at w (qs5_tile_bytes), to `to`. One mask a field is
 * all the unpacking: a field is multiplied together with those below it, whose sum is taken away behind the loop. */
QS5_INLINE void add_narrow_products(const qs5_op *op, rows_in x, const uint8_t *w, int pairs, int bits, __m512i *to) {
  const int fours = qs5_tile_fours(bits, pairs), loads = pairs - fours;
  const __m512i flip = _mm512_set1_epi8(x.flip ? (char)-128 : 0);
  const __m512i masks[3] = {_mm512_set1_epi8(3), _mm512_set1_epi8(15), _mm512_set1_epi8(63)};
  __m512i sums[2 * MOST_PAIRS];
#pragma GCC unroll 8
  for (int c = 0; c < 2 * pairs; ++c) sums[c] = _mm512_setzero_si512();
  const uint8_t *in = x.at;
  for (int64_t g = 0; g < op->groups; ++g, w += 64 * loads, in += 4) {
    const __m512i four = _mm512_xor_si512(broadcast(in), flip);
#pragma GCC unroll 8
    for (int i = 0; i < loads; ++i) {
      const __m512i v = load512(w + 64 * i);
      const int fields = i < fours ? 4 : 2, at = i < fours ? 4 * i : 2 * (i + fours);
#pragma GCC unroll 4
      for (int f = 0; f < fields; ++f) {
        const __m512i part = f == fields - 1 ? v : _mm512_and_si512(v, masks[i < fours ? f : 1]);
        sums[at + f] = _mm512_dpbusd_epi32(sums[at + f], four, part);
      }
    }
  }
  const __m512i all = sum_of_inputs(x.at, 4 * (int64_t)op->groups, flip);
#pragma GCC unroll 8
  for (int i = 0; i < loads; ++i) {
    if (i < fours) separate(sums + 4 * i, 4, 2, _mm512_slli_epi32(all, 1));
    else separate(sums + 2 * (i + fours), 2, 4, _mm512_slli_epi32(all, 3));
  }
#pragma GCC unroll 8
  for (int c = 0; c < 2 * pairs; ++c) to[c] = _mm512_add_epi32(to[c], sums[c]);
}

/* What follows the sums, up to the stores. */
QS5_INLINE void finish(const qs5_op *op, const qs5_block *block, int64_t row, int rows, int64_t at, int pairs, __m512i *sums) {
  __m512i words[MOST_SUMS / 2];
  end(op, rows, at, pairs, sums, words);
  if (op->tail.any) {
    follow_any(op, block, row, rows, at, pairs, words);
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < pairs; ++p)
      store_words(op->to->size, qs5_row_out(op, block, row + r), at + 32 * p, words[r * pairs + p]);
}

/* `rows` rows by `pairs` times 32 outputs; both are constants where this is inlined, and all loops over them are unrolled:
 * only so do the sums stay in registers. */
QS5_INLINE void tile(const qs5_op *op, const qs5_block *block, rows_in x, int bytes, int64_t row, int rows, int64_t at,
                     int pairs) {
  const int vectors = 2 * pairs;
  const int64_t groups = op->groups; /* of four bytes of input and 64 of weights: 4 x 8 or 2 x 16 bits a lane */
  const int64_t step = (op->outputs + 31) / 32 * 128;
  const uint8_t *w = (const uint8_t *)op->weight + at * 4, *in = x.at + row * x.stride;
  const __m512i flip = _mm512_set1_epi8(x.flip ? (char)-128 : 0);
  __m512i sums[MOST_SUMS], around[MOST_SUMS];
  begin(op, block, row, rows, at, pairs, around);
  move(sums, around, rows * vectors);
  for (int64_t g = 0; g < groups; ++g, w += step, in += 4) {
    __m512i weights[2 * MOST_PAIRS];
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) weights[c] = load512(w + c * 64);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      __m512i four = broadcast(in + r * x.stride);
      if (bytes && rows == 1) four = _mm512_xor_si512(four, flip);
#pragma GCC unroll 8
      for (int c = 0; c < vectors; ++c)
        sums[r * vectors + c] = bytes ? _mm512_dpbusd_epi32(sums[r * vectors + c], four, weights[c])
                                      : _mm512_dpwssd_epi32(sums[r * vectors + c], four, weights[c]);
    }
  }
  move(around, sums, rows * vectors);
  finish(op, block, row, rows, at, pairs, around);
}

/* All rows of the block for `pairs` pairs of vectors; `most` rows at a time keep the sums in registers. */
QS5_INLINE void columns(const qs5_op *op, const qs5_block *block, rows_in x, int bytes, int64_t at, int pairs, int most) {
  int64_t row = 0;
  for (; row + most <= block->rows; row += most) tile(op, block, x, bytes, row, most, at, pairs);
  for (; row + 2 <= block->rows; row += 2) tile(op, block, x, bytes, row, 2, at, pairs);
  for (; row < block->rows; ++row) tile(op, block, x, bytes, row, 1, at, pairs);
}

QS5_INLINE void product(const qs5_op *op, const qs5_block *block, rows_in x, int bytes) {
  const int64_t end = (op->outputs + 31) / 32 * 32;
  int64_t at = 0;
  for (; at + 64 <= end && (end - at) % 96; at += 64) columns(op, block, x, bytes, at, 2, 6);
  for (; at + 96 <= end; at += 96) columns(op, block, x, bytes, at, 3, 4);
  for (; at < end; at += 32) columns(op, block, x, bytes, at, 1, 8);
}

/* One tile of a single row. bits: 16 for inputs of 16 bits, 8, or those of narrow weights at `narrow`. */
QS5_INLINE void step_tile(const qs5_op *op, const qs5_block *block, rows_in x, int bits, const uint8_t *narrow, int64_t at,
                          int pairs) {
  if (bits >= 8) {
    tile(op, block, x, bits == 8, 0, 1, at, pairs);
    return;
  }
  __m512i sums[2 * MOST_PAIRS];
  begin(op, block, 0, 1, at, pairs, sums);
  add_narrow_products(op, x, narrow, pairs, bits, sums);
  finish(op, block, 0, 1, at, pairs, sums);
}

/* A single row waits for the weights from memory. */
QS5_INLINE void step(const qs5_op *op, const qs5_block *block, rows_in x, int bits) {
  const int64_t end = (op->outputs + 31) / 32;
  const uint8_t *narrow = op->narrow;
  for (int64_t at = 0; at < end;) {
    const int pairs = qs5_tile_pairs(end - at);
    switch (pairs) {
    case 1: step_tile(op, block, x, bits, narrow, 32 * at, 1); break;
    case 2: step_tile(op, block, x, bits, narrow, 32 * at, 2); break;
    case 3: step_tile(op, block, x, bits, narrow, 32 * at, 3); break;
    default: step_tile(op, block, x, bits, narrow, 32 * at, 4); break;
    }
    at += pairs;
    if (bits < 8) narrow += (int64_t)op->groups * qs5_tile_bytes(bits, pairs);
  }
}

static void dense8(const qs5_op *op, const qs5_block *block) {
  const rows_in x = prepare8(op, block);
  if (block->rows > 1) product(op, block, x, 1);
  else if (op->narrow_bits == 2) step(op, block, x, 2);
  else if (op->narrow_bits == 4) step(op, block, x, 4);
  else step(op, block, x, 8);
}

static void dense16(const qs5_op *op, const qs5_block *block) {
  const rows_in x = prepare16(op, block);
  if (block->rows > 1) product(op, block, x, 0);
  else step(op, block, x, 16);
}

qs5_kernel qs5_product_vnni(const qs5_op *op) { return op->bytes ? dense8 : dense16; }
