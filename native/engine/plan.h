/* What a model is made of, once built. Shared by the builder, the runner and the kernels of all instruction sets. */
#ifndef QS5_PLAN_H
#define QS5_PLAN_H

#include "engine.h"

/* Rows of signals and arrays of constants are filled up to a multiple of this many codes, so that kernels may read and
 * write whole vectors. */
enum { QS5_PAD = 64 };
/* Rows that share a pass over the weights, in portable.c. */
enum { QS5_PRODUCT_ROWS = 4 };

typedef struct {
  int32_t channels, low, high;
  qs5_type type;
  int32_t size;   /* bytes of a code */
  int64_t stride; /* bytes of a row */
  int64_t place;  /* where its rows start, in bytes for each row of the workspace */
} qs5_info;

/* requantize(acc, M, s) in 32 bits (SPEC.md, section 3): shifts below 17 are raised to 17 by shifting acc left first.
 * All arrays have QS5_PAD entries to spare, which give 0. */
typedef struct {
  int32_t *M, *shift, *left;
  int raised;      /* whether some left is not 0 */
  int clipped;     /* whether acc 2^left may pass 2^31 */
  int32_t *packed; /* 2^16 M + shift - 17: half the bytes for kernels that wait for memory */
} qs5_rescale;

struct qs5_block;
typedef struct qs5_op qs5_op;
typedef void (*qs5_kernel)(const qs5_op *op, const struct qs5_block *block);

/* The ops that a kernel does to its codes before they leave the registers, in this order; NULL: no such op (fuse.c). */
typedef struct {
  const qs5_op *table, *multiply, *add, *affine; /* after a product */
  const qs5_op *shift;                           /* after a recurrence */
  int any;
} qs5_tail;

/* What a step reads of an op comes first: the fewer cache lines the better. */
struct qs5_op {
  qs5_kernel run;
  qs5_kind kind;
  int32_t in[QS5_MAX_READS], out;
  int in_tail; /* it runs as part of an earlier op */
  int other;   /* a multiply or add in a tail: which of its inputs comes from memory */
  int kept;    /* whether an op outside of the tail reads what it writes */
  int32_t numbers[QS5_MAX_NUMBERS];
  const qs5_info *x, *y, *u, *to; /* of in[0], in[1], in[2] and out */

  /* For kernels on 16-bit lanes (lanes512.h): what they read as 32-bit lanes is in pairs (qs5_place_in_pairs). */
  uint8_t *bytes_table;      /* of a table; any op of one 8-bit signal may have one */
  int16_t *D16, *M16;        /* output: D and D_M where u has 8 bits, else D16 is NULL; affine: M */
  int32_t *offset2, *shift2; /* affine: offset and shift; output: shift2 is D_shift */
  int16_t *right16;          /* 2^(15 - s) where every s of a shift is 1 to 15; else NULL */
  int32_t *rotation;         /* in pairs: (re, -im), then (im, re), for 16-bit multiply-adds */
  int64_t state_at;          /* in int16 from the start of a record */

  /* Dense and output: rows of the matrix, its inputs, the bias with the correction for shifted inputs in it. */
  qs5_tail tail;
  int32_t outputs, inputs, groups; /* groups: of 2 or 4 inputs, as the packing has them */
  int bytes;                       /* inputs enter the product as bytes, else as 16-bit numbers */
  void *weight;
  uint8_t *narrow; /* the weights once more, of 4 or 2 bits, for single steps; NULL: they do not fit (qs5_tile_pairs) */
  int64_t narrow_bytes;
  int narrow_bits;
  int32_t *bias;
  qs5_rescale scale, direct;
  int64_t largest_bias; /* as the model has it */
  int32_t *D;

  int32_t *M, *offset, *shift;  /* affine, layer norm: offset has the half in it */
  int32_t *left, *half, *right; /* shift(x, s) a channel */
  int16_t *re, *im;
  int32_t *table; /* by the byte of x; an embedding: (tokens, padded outputs) */
  int32_t tokens;
  int square_bits;
};

struct qs5_model {
  qs5_level level;
  int counting, fused, bidirectional, masked;
  int32_t count, pool; /* ops; position of the pool, or count */
  qs5_op *ops;
  int32_t *stage_of;         /* of each op: the position of the op that runs it */
  qs5_info *signals; /* count + 1 */
  int32_t input_multipliers;
  int64_t *input_M, *input_offset;
  int32_t input_shift;
  qs5_record record;
  int64_t row_bytes;    /* of all signals together, shared where lifetimes allow */
  int32_t max_channels; /* padded, over all signals and inputs of products */
  void **owned;         /* every allocation, to free */
  size_t owned_count;
  /* Of the instruction set: adds rows of codes to sums. */
  void (*accumulate)(const qs5_info *info, const void *rows, int64_t count, int64_t *total);
};

/* `sequences` sequences of `steps` consecutive rows each. */
typedef struct qs5_block {
  int64_t sequences, steps, rows;
  unsigned char *const *at; /* first row of every signal */
  unsigned char *records;
  int64_t record_bytes;
  int64_t *saturated; /* by signal, or NULL */
  int32_t *wide[4];   /* scratch rows */
  int64_t wide_stride; /* numbers in a scratch row */
  int32_t *sums;      /* QS5_PRODUCT_ROWS scratch rows */
  void *inputs;       /* scratch for the inputs of a product: a scratch row of int16 for each row of the block */
} qs5_block;

static inline const void *qs5_row(const qs5_block *block, const qs5_info *info, int32_t signal, int64_t row) {
  return block->at[signal] + row * info->stride;
}

static inline void *qs5_row_out(const qs5_op *op, const qs5_block *block, int64_t row) {
  return block->at[op->out] + row * op->to->stride;
}

static inline int16_t *qs5_state(const qs5_op *op, const qs5_block *block, int64_t sequence) {
  return (int16_t *)(void *)(block->records + sequence * block->record_bytes) + op->state_at;
}

/* Where a channel is when two vectors of sixteen 32-bit lanes hold 32 channels such that packing them to 16 bits
 * (vpackssdw) brings the channels in order: lane 4 l + j of vector v is channel 8 l + 4 v + j. */
static inline int32_t qs5_place_in_pairs(int32_t channel) {
  return channel / 32 * 32 + channel / 4 % 2 * 16 + channel % 32 / 8 * 4 + channel % 4;
}

/* How a product's weights are stored: [outputs / lanes][inputs / group][lanes][group], with the first two the other way
 * round, and outputs in pairs, if `across`. No lanes, no group: as they come. */
typedef struct {
  int32_t lanes, group, across;
} qs5_packing;

/* A single step takes the outputs of a product tile by tile: 32 times this many of the `pairs` times 32 that are left. */
static inline int qs5_tile_pairs(int64_t pairs) {
  if (pairs == 4 || pairs > 6) return 4;
  return pairs > 4 ? 3 : (int)pairs;
}

/* How a tile of weights of 4 or 2 bits is stored: [groups][bytes][16 lanes][4 inputs], where a vector of 64 bytes holds two
 * or four vectors of weights. The last one is signed in the upper bits, those below have the offset that leaves them
 * positive. Two bits come in fours of vectors; where two vectors are left, they have four bits. */
static inline int qs5_tile_fours(int bits, int pairs) { return bits == 2 ? pairs / 2 : 0; }
static inline int qs5_tile_bytes(int bits, int pairs) { return 64 * (pairs - qs5_tile_fours(bits, pairs)); }

/* Whether an op without memory can be done on 16-bit lanes (lanes512.h). */
int qs5_fits_words(const qs5_op *op);

/* The kernels of one instruction set. */
typedef struct {
  qs5_kernel ops[QS5_KINDS];
  void (*accumulate)(const qs5_info *info, const void *rows, int64_t count, int64_t *total);
} qs5_kernels;

const qs5_kernels *qs5_kernels_baseline(void);
const qs5_kernels *qs5_kernels_avx2(void);
const qs5_kernels *qs5_kernels_avx512(void);
/* The kernel that is faster than the portable one for this op, or NULL. */
qs5_kernel qs5_fast_vnni(const qs5_op *op);
qs5_kernel qs5_product_vnni(const qs5_op *op);
qs5_kernel qs5_recurrence_vnni(const qs5_op *op);
qs5_kernel qs5_norm_vnni(const qs5_op *op);

#endif
