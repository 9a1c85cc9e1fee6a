/* The integer engine: runs an integer model (src/qs5/integer/SPEC.md) to the bit.
 *
 * C99, integers only. A model is built once from ops and constants, repacked for the instruction set that runs it, and
 * is read-only afterwards: any number of threads may share it. A workspace holds the buffers of one thread. What a
 * sequence has to remember between two chunks is one record of `qs5_state_bytes` bytes.
 */
#ifndef QS5_ENGINE_H
#define QS5_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { QS5_MAX_READS = 3, QS5_MAX_NUMBERS = 3, QS5_MAX_ARRAYS = 6, QS5_MAX_OPS = 4096, QS5_MAX_CHANNELS = 1 << 14 };

typedef enum {
  QS5_DENSE,
  QS5_EMBEDDING,
  QS5_AFFINE,
  QS5_LAYER_NORM,
  QS5_RECURRENCE,
  QS5_SHIFT,
  QS5_OUTPUT,
  QS5_TABLE,
  QS5_QGELU,
  QS5_HARD_SIGMOID,
  QS5_MULTIPLY,
  QS5_ADD,
  QS5_MEAN_POOL,
  QS5_LAST_POOL,
  QS5_KINDS
} qs5_kind;

typedef enum { QS5_I8, QS5_U8, QS5_I16, QS5_U16, QS5_I32 } qs5_type;

typedef struct {
  int32_t channels, bits, is_signed;
} qs5_signal;

typedef struct {
  const void *data;
  int64_t count;
  qs5_type type;
} qs5_array;

/* One op. Signal 0 is the model's input, signal i + 1 is what op i writes; a read of -1 is absent.
 * numbers: recurrence M, shift, reverse; qgelu offset, shift; hard_sigmoid offset, M, shift; multiply and add shift.
 * arrays: in the order of the fields in ops.py. They are copied. */
typedef struct {
  qs5_kind kind;
  int32_t reads[QS5_MAX_READS];
  qs5_signal out;
  int32_t numbers[QS5_MAX_NUMBERS];
  qs5_array arrays[QS5_MAX_ARRAYS];
} qs5_op_spec;

/* From raw samples to codes: scaled by M, offset and shift, or (channels = 0 multipliers) taken as they are. */
typedef struct {
  qs5_signal out;
  int32_t multipliers;
  const int64_t *M, *offset;
  int32_t shift;
} qs5_input_spec;

typedef enum { QS5_BASELINE, QS5_AVX2, QS5_AVX512VNNI, QS5_LEVELS } qs5_level;

const char *qs5_level_name(qs5_level level);
/* Whether this processor has it and this build contains it. */
int qs5_level_available(qs5_level level);

typedef struct qs5_model qs5_model;
typedef struct qs5_work qs5_work;

/* QS5_COUNTING: a slower model that counts saturated codes. QS5_UNFUSED: every op by itself, for tests. QS5_MASKED: scans
 * from the right begin at the true end of a padded sequence, else at that of the padding. */
enum { QS5_COUNTING = 1, QS5_UNFUSED = 2, QS5_MASKED = 4 };

/* options: of the above, or 0. Returns NULL and writes a sentence into `error`. */
qs5_model *qs5_model_new(const qs5_input_spec *input, const qs5_op_spec *ops, int32_t count, qs5_level level,
                         int options, char *error, size_t error_size);
void qs5_model_free(qs5_model *model);
int32_t qs5_input_channels(const qs5_model *model);
int32_t qs5_output_channels(const qs5_model *model);
int qs5_has_pool(const qs5_model *model);
int qs5_is_bidirectional(const qs5_model *model);
int32_t qs5_signal_count(const qs5_model *model);

/* The record of one sequence: the states as int16, re before im, op after op; then for models with a pool the sums
 * (int64) and the last step (int32) of its channels, and the number of steps (int64). All of it is 0 at the start. */
typedef struct {
  size_t bytes, total_at, last_at, steps_at;
  int32_t states, pooled;
} qs5_record;
qs5_record qs5_record_layout(const qs5_model *model);

/* Buffers for blocks of `rows` steps; bidirectional models need all steps of a sequence in one block. NULL: no memory. */
qs5_work *qs5_work_new(const qs5_model *model, int64_t rows);
void qs5_work_free(qs5_work *work);
/* Adds to `counts` how many codes saturated, by signal, since the last call. Nothing unless the model counts. */
void qs5_work_saturated(const qs5_model *model, qs5_work *work, int64_t *counts);

/* Advance `sequences` sequences by `steps` steps each. raw: (sequences, steps, channels) of `type`. records: one after
 * the other. lengths: NULL, or how many of the steps count in the pool. outputs: NULL, or for models without a pool
 * (sequences, steps, channels). */
void qs5_run(const qs5_model *model, qs5_work *work, int64_t sequences, int64_t steps, const void *raw, qs5_type type,
             const int64_t *lengths, unsigned char *records, int32_t *outputs);
/* The pool and what follows: (sequences, output channels). Every record must have at least one step. */
void qs5_answer(const qs5_model *model, qs5_work *work, int64_t sequences, const unsigned char *records, int32_t *outputs);

#ifdef __cplusplus
}
#endif
#endif
