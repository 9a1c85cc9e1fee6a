/* The constants of an op: checked for what memory safety and defined arithmetic need, and copied into the layout that
 * the kernels read. Whether sums can overflow is proved in Python (qs5.integer.checks). */
#include "build.h"
#include "rows.h"

#include <stdlib.h>
#include <string.h>

static int64_t padded(int64_t n) { return (n + QS5_PAD - 1) / QS5_PAD * QS5_PAD; }

void *qs5_take(qs5_build *build, int64_t count, size_t size) {
  qs5_model *model = build->model;
  const size_t bytes = (size_t)padded(count) * size + QS5_PAD;
  void **owned = realloc(model->owned, (model->owned_count + 1) * sizeof *owned);
  if (!owned) return qs5_refuse(build, "out of memory"), NULL;
  model->owned = owned;
  unsigned char *raw = calloc(bytes, 1);
  if (!raw) return qs5_refuse(build, "out of memory"), NULL;
  owned[model->owned_count++] = raw;
  return raw + (QS5_PAD - (uintptr_t)raw % QS5_PAD) % QS5_PAD;
}

/* Element i of an array of any type. */
static int32_t element(const qs5_array *array, int64_t i) {
  switch (array->type) {
  case QS5_I8: return ((const int8_t *)array->data)[i];
  case QS5_U8: return ((const uint8_t *)array->data)[i];
  case QS5_I16: return ((const int16_t *)array->data)[i];
  case QS5_U16: return ((const uint16_t *)array->data)[i];
  default: return ((const int32_t *)array->data)[i];
  }
}

/* A copy of an array as int32, or NULL: `count` numbers within low..high. */
static int32_t *numbers(qs5_build *build, int which, int64_t count, int32_t low, int32_t high) {
  const qs5_array *array = &build->spec->arrays[which];
  if (!array->data || array->count != count) return qs5_refuse(build, "a constant of the wrong size"), NULL;
  int32_t *to = qs5_take(build, count, sizeof *to);
  for (int64_t i = 0; to && i < count; ++i) {
    to[i] = element(array, i);
    if (to[i] < low || to[i] > high) return qs5_refuse(build, "a constant out of range"), NULL;
  }
  return to;
}

/* Shifts below 17 become 17 and a shift to the left. Padding rescales everything to 0. */
static void raise_shifts(qs5_build *build, qs5_rescale *scale, int64_t count) {
  scale->left = qs5_take(build, count, sizeof *scale->left);
  scale->packed = qs5_take(build, count, sizeof *scale->packed);
  if (!scale->M || !scale->shift || !scale->left || !scale->packed) return;
  for (int64_t i = 0; i < padded(count); ++i) {
    if (i >= count) scale->shift[i] = 17;
    if (scale->shift[i] < 17) {
      scale->left[i] = 17 - scale->shift[i];
      scale->shift[i] = 17;
      scale->raised = 1;
    }
    scale->packed[i] = scale->M[i] * (1 << 16) + scale->shift[i] - 17;
  }
}

static void rescale_arrays(qs5_build *build, qs5_rescale *scale, int M, int shift, int64_t count) {
  scale->M = numbers(build, M, count, 0, INT16_MAX);
  scale->shift = numbers(build, shift, count, 1, 46);
  raise_shifts(build, scale, count);
}

static void rescale_number(qs5_build *build, qs5_rescale *scale, int32_t M, int32_t shift) {
  if (M < 0 || M > INT16_MAX || shift < 1 || shift > 46) {
    qs5_refuse(build, "a multiplier out of range");
    return;
  }
  scale->M = qs5_take(build, 1, sizeof *scale->M);
  scale->shift = qs5_take(build, 1, sizeof *scale->shift);
  if (!scale->M || !scale->shift) return;
  *scale->M = M;
  *scale->shift = shift;
  raise_shifts(build, scale, 1);
}

/* -- products ---------------------------------------------------------------------------------------------------- */

/* What a code of this signal has more, or less, where it enters a product (rows.h inputs16, vnni.c inputs8). */
static int32_t offset_of_inputs(const qs5_op *op, const qs5_info *info) {
  if (op->bytes) return info->type == QS5_I8 ? 128 : 0;
  return info->type == QS5_U16 ? -(1 << 15) : 0;
}

static void correct_bias(qs5_op *op, const int32_t *weight) {
  for (int32_t o = 0; o < op->outputs; ++o) {
    int64_t correction = 0;
    for (int32_t i = 0; i < op->inputs; ++i) {
      const qs5_info *info = i < op->x->channels ? op->x : op->y;
      correction += (int64_t)weight[(int64_t)o * op->inputs + i] * offset_of_inputs(op, info);
    }
    op->bias[o] = (int32_t)(uint32_t)((int64_t)op->bias[o] - correction); /* sums wrap, and wrap back */
  }
}

/* weight (outputs, inputs) -> [outputs / lanes][groups][lanes][group], or [groups][outputs / lanes][lanes][group];
 * zeros where there is none. */
static int64_t place(const qs5_op *op, qs5_packing packing, int32_t group, int32_t o, int32_t i) {
  const int64_t tiles = (op->outputs + 31) / 32 * 2;
  if (packing.across) o = qs5_place_in_pairs(o);
  const int64_t tile = packing.across ? i / group * tiles + o / packing.lanes
                                      : (int64_t)(o / packing.lanes) * op->groups + i / group;
  return (tile * packing.lanes + o % packing.lanes) * group + i % group;
}

static void pack(qs5_build *build, qs5_op *op, const int32_t *weight, qs5_packing packing) {
  const int32_t group = packing.group ? packing.group : op->inputs;
  op->groups = (op->inputs + group - 1) / group;
  const int64_t rows = packing.lanes > 1 ? (op->outputs + 31) / 32 * 32 : op->outputs;
  op->weight = qs5_take(build, rows * op->groups * group, op->bytes ? sizeof(int8_t) : sizeof(int16_t));
  for (int32_t o = 0; op->weight && o < op->outputs; ++o)
    for (int32_t i = 0; i < op->inputs; ++i) {
      const int64_t at = place(op, packing, group, o, i);
      const int32_t w = weight[(int64_t)o * op->inputs + i];
      if (op->bytes) ((int8_t *)op->weight)[at] = (int8_t)w;
      else ((int16_t *)op->weight)[at] = (int16_t)w;
    }
}

/* The fewest bits, of 4 and 2, that hold all weights in two's complement, or 0. */
static int narrow_bits(const int32_t *weight, int64_t count) {
  int32_t low = 0, high = 0;
  for (int64_t i = 0; i < count; ++i) {
    low = least(low, weight[i]);
    high = most(high, weight[i]);
  }
  if (low >= -2 && high <= 1) return 2;
  return low >= -8 && high <= 7 ? 4 : 0;
}

/* One output of a tile, which is at `to` and has `pairs` pairs of vectors. Bytes beyond the inputs count as weights of 0. */
static void pack_output(const qs5_op *op, uint8_t *to, int pairs, int32_t o, const int32_t *weight) {
  const int fours = qs5_tile_fours(op->narrow_bits, pairs), vector = o / 16, in_fours = vector < 4 * fours;
  const int bits = in_fours ? 2 : 4, field = in_fours ? vector % 4 : vector % 2, last = in_fours ? 3 : 1;
  const int bytes = in_fours ? vector / 4 : fours + (vector - 4 * fours) / 2;
  const int32_t offset = field == last ? 0 : 1 << (bits - 1);
  uint8_t *row = to + bytes * 64 + o % 16 * 4;
  for (int32_t i = 0; i < 4 * op->groups; ++i) {
    uint8_t *at = row + (int64_t)(i / 4) * qs5_tile_bytes(op->narrow_bits, pairs) + i % 4;
    *at = (uint8_t)(*at + ((i < op->inputs ? weight[i] : 0) + offset) * (1 << (bits * field)));
  }
}

/* See qs5_tile_bytes. */
static void pack_narrow(qs5_build *build, qs5_op *op, const int32_t *weight) {
  op->narrow_bits = narrow_bits(weight, (int64_t)op->outputs * op->inputs);
  if (!op->narrow_bits) return;
  const int64_t all = (op->outputs + 31) / 32;
  int64_t size = 0;
  for (int64_t at = 0, pairs; at < all; at += pairs) {
    pairs = qs5_tile_pairs(all - at);
    size += (int64_t)op->groups * qs5_tile_bytes(op->narrow_bits, (int)pairs);
  }
  op->narrow_bytes = size;
  uint8_t *to = op->narrow = qs5_take(build, size, 1);
  for (int64_t at = 0, pairs; to && at < all; at += pairs) {
    pairs = qs5_tile_pairs(all - at);
    for (int64_t o = 32 * at; o < op->outputs && o < 32 * (at + pairs); ++o)
      pack_output(op, to, (int)pairs, qs5_place_in_pairs((int32_t)(o - 32 * at)), weight + o * op->inputs);
    to += (int64_t)op->groups * qs5_tile_bytes(op->narrow_bits, (int)pairs);
  }
}

/* Whether an op's constants are those of the 16-bit lanes. */
static int on_words(const qs5_build *build) {
  return build->model->level == QS5_AVX512VNNI && !build->model->counting;
}

static void in_pairs(const qs5_build *build, int32_t *a, int32_t count) {
  if (!on_words(build) || !a) return;
  for (int32_t begin = 0; begin < count; begin += 32) {
    int32_t block[32];
    memcpy(block, a + begin, sizeof block);
    for (int32_t i = 0; i < 32; ++i) a[begin + qs5_place_in_pairs(i)] = block[i];
  }
}

static int16_t *halves(qs5_build *build, const int32_t *from, int32_t count) {
  int16_t *to = from ? qs5_take(build, count, sizeof *to) : NULL;
  for (int32_t i = 0; to && i < count; ++i) to[i] = (int16_t)from[i];
  return to;
}

static int32_t *copied_in_pairs(qs5_build *build, const int32_t *from, int32_t count) {
  int32_t *to = from ? qs5_take(build, count, sizeof *to) : NULL;
  if (!to) return NULL;
  memcpy(to, from, (size_t)count * sizeof *to);
  in_pairs(build, to, count);
  return to;
}

static void matrix(qs5_build *build, qs5_op *op, int biases) {
  op->outputs = op->to->channels;
  op->inputs = op->x->channels + (op->kind == QS5_OUTPUT && op->y ? op->y->channels : 0);
  const int vnni = on_words(build);
  const int pairs = build->model->level != QS5_BASELINE; /* product.h */
  op->bytes = vnni && op->x->size == 1 && (op->kind == QS5_DENSE || !op->y || op->y->size == 1);
  int32_t *weight = numbers(build, 0, (int64_t)op->outputs * op->inputs, -127, 127);
  op->bias = biases && build->spec->arrays[1].count ? numbers(build, 1, op->outputs, INT32_MIN, INT32_MAX)
                                                    : qs5_take(build, op->outputs, sizeof *op->bias);
  if (!weight || !op->bias) return;
  for (int32_t i = 0; i < op->outputs; ++i) {
    const int64_t size = op->bias[i] < 0 ? -(int64_t)op->bias[i] : op->bias[i];
    if (size > op->largest_bias) op->largest_bias = size;
  }
  correct_bias(op, weight);
  const qs5_packing rows = {1, 0, 0}, pairs8 = {8, 2, 0}, pairs16 = {16, 2, 1}, fours16 = {16, 4, 1};
  pack(build, op, weight, vnni ? (op->bytes ? fours16 : pairs16) : pairs ? pairs8 : rows);
  if (op->bytes) pack_narrow(build, op, weight);
}

/* Whether a sum, shifted to the left, may pass 32 bits. `beside`: what is added to the products. */
static void find_clipped(const qs5_build *build, qs5_op *op, int64_t beside) {
  const qs5_array *weight = &build->spec->arrays[0];
  for (int32_t o = 0; op->scale.left && o < op->outputs; ++o) {
    int64_t most = beside;
    for (int32_t i = 0; i < op->inputs; ++i) {
      const int64_t w = element(weight, (int64_t)o * op->inputs + i);
      most += (w < 0 ? -w : w) * (i < op->x->channels ? op->x->high : op->y->high);
    }
    if (most << op->scale.left[o] > INT32_MAX) op->scale.clipped = 1;
  }
}

static void sort_rescale(const qs5_build *build, qs5_rescale *scale, int32_t count) {
  in_pairs(build, scale->packed, count);
  in_pairs(build, scale->left, count);
}

static void dense(qs5_build *build, qs5_op *op) {
  matrix(build, op, 1);
  rescale_arrays(build, &op->scale, 2, 3, op->outputs);
  if (build->failed) return;
  find_clipped(build, op, op->largest_bias);
  in_pairs(build, op->bias, op->outputs);
  sort_rescale(build, &op->scale, op->outputs);
}

/* u D D_M on 16-bit lanes where u has 8 bits: |u D| < 2^15, |u D D_M| < 2^30, and a shift of 32 or more leaves nothing. */
static void direct_on_words(qs5_build *build, qs5_op *op, const int32_t *M, const int32_t *shift) {
  op->D16 = halves(build, op->D, op->outputs);
  op->M16 = halves(build, M, op->outputs);
  op->shift2 = qs5_take(build, op->outputs, sizeof *op->shift2);
  if (!op->D16 || !op->M16 || !op->shift2) return;
  for (int64_t i = 0; i < padded(op->outputs); ++i) {
    const int nothing = i >= op->outputs || shift[i] > 31;
    if (nothing) op->M16[i] = 0;
    op->shift2[i] = nothing ? 1 : shift[i];
  }
  in_pairs(build, op->shift2, op->outputs);
}

static void output(qs5_build *build, qs5_op *op) {
  matrix(build, op, 0);
  op->D = numbers(build, 1, op->outputs, -127, 127);
  int32_t *M = numbers(build, 2, op->outputs, 0, INT16_MAX), *shift = numbers(build, 3, op->outputs, 1, 46);
  if (build->failed) return;
  if (on_words(build) && op->u->size == 1) direct_on_words(build, op, M, shift);
  for (int32_t i = 0; i < op->outputs; ++i) op->direct.clipped |= shift[i] < 8; /* 2^30 / 2^7 is well below 2^24 */
  rescale_arrays(build, &op->direct, 2, 3, op->outputs);
  rescale_arrays(build, &op->scale, 4, 5, op->outputs);
  if (build->failed) return;
  if (!op->D16) op->direct.clipped = 1;
  find_clipped(build, op, (int64_t)1 << 24);
  in_pairs(build, op->bias, op->outputs);
  in_pairs(build, op->D, op->outputs);
  sort_rescale(build, &op->direct, op->outputs);
  sort_rescale(build, &op->scale, op->outputs);
}

/* -- the others -------------------------------------------------------------------------------------------------- */

static void affine(qs5_build *build, qs5_op *op) {
  const int32_t n = op->to->channels;
  op->M = numbers(build, 0, n, INT16_MIN, INT16_MAX);
  op->offset = numbers(build, 1, n, INT32_MIN, INT32_MAX);
  op->shift = numbers(build, 2, n, 1, 30);
  for (int32_t i = 0; op->offset && op->shift && i < n; ++i) {
    const int64_t sum = (int64_t)op->offset[i] + (1 << (op->shift[i] - 1));
    if (sum > INT32_MAX) qs5_refuse(build, "an offset out of range");
    op->offset[i] = (int32_t)(uint32_t)sum;
  }
  if (on_words(build)) {
    op->M16 = halves(build, op->M, n);
    op->offset2 = copied_in_pairs(build, op->offset, n);
    op->shift2 = copied_in_pairs(build, op->shift, n);
  }
  int width = 0;
  for (int32_t v = n - 1; v; v >>= 1) ++width;
  op->square_bits = (31 - width) / 2;
}

static void recurrence(qs5_build *build, qs5_op *op) {
  const int32_t modes = op->to->channels / 2;
  const int32_t *re = numbers(build, 0, modes, -INT16_MAX, INT16_MAX), *im = numbers(build, 1, modes, -INT16_MAX, INT16_MAX);
  op->re = qs5_take(build, modes, sizeof *op->re);
  op->im = qs5_take(build, modes, sizeof *op->im);
  op->rotation = qs5_take(build, 2 * padded(modes), sizeof *op->rotation);
  if (!re || !im || !op->re || !op->im || !op->rotation) return;
  for (int32_t i = 0; i < modes; ++i) {
    op->re[i] = (int16_t)re[i];
    op->im[i] = (int16_t)im[i];
    op->rotation[i] = (int32_t)(((uint32_t)re[i] & 0xFFFFu) | (uint32_t)-im[i] << 16);
    op->rotation[padded(modes) + i] = (int32_t)(((uint32_t)im[i] & 0xFFFFu) | (uint32_t)re[i] << 16);
  }
  in_pairs(build, op->rotation, modes);
  in_pairs(build, op->rotation + padded(modes), modes);
  if (op->numbers[0] != 1) rescale_number(build, &op->scale, op->numbers[0], op->numbers[1]);
  else if (op->numbers[1] < 1 || op->numbers[1] > 30) qs5_refuse(build, "a shift out of range");
}

static void right_shifts(qs5_build *build, qs5_op *op) {
  const int32_t n = op->to->channels;
  for (int32_t i = 0; i < n; ++i)
    if (op->right[i] < 1) return;
  op->right16 = qs5_take(build, n, sizeof *op->right16);
  for (int32_t i = 0; op->right16 && i < n; ++i) op->right16[i] = (int16_t)(1 << (15 - op->right[i]));
}

static void shift(qs5_build *build, qs5_op *op) {
  const int32_t n = op->to->channels, *s = numbers(build, 0, n / 2, -15, 15);
  op->left = qs5_take(build, n, sizeof *op->left);
  op->half = qs5_take(build, n, sizeof *op->half);
  op->right = qs5_take(build, n, sizeof *op->right);
  if (!s || !op->left || !op->half || !op->right) return;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t by = s[i % (n / 2)];
    op->left[i] = by < 0 ? -by : 0;
    op->right[i] = by > 0 ? by : 0;
    op->half[i] = by > 0 ? 1 << (by - 1) : 0;
  }
  right_shifts(build, op);
}

/* Indexed by the byte of a code, so that no code, whatever it is, reads beyond the table. */
static void table(qs5_build *build, qs5_op *op) {
  const int32_t entries = op->x->high - op->x->low + 1;
  if (op->x->size != 1) {
    qs5_refuse(build, "a table reads at most 8 bits");
    return;
  }
  const int32_t *from = numbers(build, 0, entries, op->to->low, op->to->high);
  op->table = qs5_take(build, 256, sizeof *op->table);
  op->bytes_table = qs5_take(build, 256, 1);
  if (!from || !op->table || !op->bytes_table) return;
  for (int32_t i = 0; i < entries; ++i) {
    op->table[(uint8_t)(op->x->low + i)] = from[i];
    op->bytes_table[(uint8_t)(op->x->low + i)] = (uint8_t)from[i];
  }
}

static void embedding(qs5_build *build, qs5_op *op) {
  const int64_t n = op->to->channels, stride = padded(n);
  const int64_t tokens = build->spec->arrays[0].count / n;
  if (tokens < 1 || tokens > 1 << 20) {
    qs5_refuse(build, "expected 1 to 2^20 tokens");
    return;
  }
  const int32_t *from = numbers(build, 0, tokens * n, op->to->low, op->to->high);
  op->tokens = (int32_t)tokens;
  op->table = qs5_take(build, tokens * stride, sizeof *op->table);
  for (int64_t t = 0; from && op->table && t < tokens; ++t)
    memcpy(op->table + t * stride, from + t * n, (size_t)n * sizeof *from);
}

static void within(qs5_build *build, int32_t v, int32_t low, int32_t high) {
  if (v < low || v > high) qs5_refuse(build, "a number out of range");
}

/* A table of an op of one signal of 8 bits, for kernels that look up faster than they compute. */
static void tabulate(qs5_build *build, qs5_op *op) {
  if (build->failed || op->x->size != 1 || op->to->size != 1) return;
  op->bytes_table = qs5_take(build, 256, 1);
  const int32_t offset = op->numbers[0];
  for (int32_t x = op->x->low; op->bytes_table && x <= op->x->high; ++x) {
    const int32_t opened = clamp(x + offset, 0, 2 * offset);
    const int32_t v = op->kind == QS5_QGELU ? shift_by(x * opened, op->numbers[1])
                                            : rescale(opened, *op->scale.M, *op->scale.shift, *op->scale.left);
    op->bytes_table[(uint8_t)x] = (uint8_t)clamp(v, op->to->low, op->to->high);
  }
}

static void hard_sigmoid(qs5_build *build, qs5_op *op) {
  within(build, op->numbers[0], 1, 1 << 28);
  rescale_number(build, &op->scale, op->numbers[1], op->numbers[2]);
  tabulate(build, op);
}

void qs5_constants(qs5_build *build, qs5_op *op) {
  switch (op->kind) {
  case QS5_DENSE: dense(build, op); break;
  case QS5_OUTPUT: output(build, op); break;
  case QS5_EMBEDDING: embedding(build, op); break;
  case QS5_AFFINE:
  case QS5_LAYER_NORM: affine(build, op); break;
  case QS5_RECURRENCE: recurrence(build, op); break;
  case QS5_SHIFT: shift(build, op); break;
  case QS5_TABLE: table(build, op); break;
  case QS5_HARD_SIGMOID: hard_sigmoid(build, op); break;
  case QS5_QGELU:
    within(build, op->numbers[0], 1, 1 << 15);
    within(build, op->numbers[1], -15, 30);
    tabulate(build, op);
    break;
  case QS5_MULTIPLY:
  case QS5_ADD: within(build, op->numbers[0], -15, 30); break;
  default: break;
  }
}
