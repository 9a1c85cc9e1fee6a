/* Makes a model: checks what its ops read, gives every signal a place in the workspace, chooses the kernels. */
#include "build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void qs5_refuse(qs5_build *build, const char *reason) {
  if (build->failed) return;
  build->failed = 1;
  if (build->at < 0) snprintf(build->error, build->error_size, "input: %s", reason);
  else snprintf(build->error, build->error_size, "op %d: %s", (int)build->at, reason);
}

/* -- instruction sets -------------------------------------------------------------------------------------------- */

const char *qs5_level_name(qs5_level level) {
  static const char *const names[QS5_LEVELS] = {"baseline", "avx2", "avx512vnni"};
  return level >= 0 && level < QS5_LEVELS ? names[level] : "";
}

int qs5_level_available(qs5_level level) {
#if defined(QS5_X86_DISPATCH)
  __builtin_cpu_init();
  if (level == QS5_AVX2) return __builtin_cpu_supports("avx2") != 0;
  if (level == QS5_AVX512VNNI)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
#endif
  return level == QS5_BASELINE;
}

static const qs5_kernels *kernels_of(qs5_level level) {
#if defined(QS5_X86_DISPATCH)
  if (level == QS5_AVX2) return qs5_kernels_avx2();
  if (level == QS5_AVX512VNNI) return qs5_kernels_avx512();
#endif
  (void)level;
  return qs5_kernels_baseline();
}

static qs5_kernel kernel_of(const qs5_model *model, const qs5_op *op) {
  qs5_kernel fast = NULL;
#if defined(QS5_X86_DISPATCH)
  if (!model->counting && model->level == QS5_AVX512VNNI) fast = qs5_fast_vnni(op);
#endif
  return fast ? fast : kernels_of(model->level)->ops[op->kind];
}

/* -- signals ----------------------------------------------------------------------------------------------------- */

static void describe(qs5_build *build, qs5_info *info, const qs5_signal *signal) {
  const int32_t bits = signal->bits;
  if (signal->channels < 1 || signal->channels > QS5_MAX_CHANNELS || bits < 1 || bits > 16) {
    qs5_refuse(build, "a signal of unsupported size");
    return;
  }
  info->channels = signal->channels;
  info->high = signal->is_signed ? (bits > 1 ? (1 << (bits - 1)) - 1 : 1) : (1 << bits) - 1;
  info->low = signal->is_signed ? -info->high : 0;
  info->size = bits <= 8 ? 1 : 2;
  info->type = bits <= 8 ? (signal->is_signed ? QS5_I8 : QS5_U8) : (signal->is_signed ? QS5_I16 : QS5_U16);
  info->stride = ((int64_t)info->channels + QS5_PAD - 1) / QS5_PAD * QS5_PAD * info->size;
}

static const qs5_info *signal_read(qs5_build *build, int input) {
  const int32_t signal = build->spec->reads[input];
  if (signal < 0) return NULL;
  if (signal > build->at) { /* signal at + 1 is what this op writes */
    qs5_refuse(build, "reads a signal that nothing wrote");
    return NULL;
  }
  return &build->model->signals[signal];
}

/* The channels that an op's signals must have, given those of its output. */
static void check_channels(qs5_build *build, const qs5_op *op) {
  const int32_t n = op->to->channels;
  const int free_x = op->kind == QS5_DENSE || op->kind == QS5_OUTPUT || op->kind == QS5_EMBEDDING;
  const int reads_y = op->kind == QS5_MULTIPLY || op->kind == QS5_ADD;
  if (!op->x || (reads_y && !op->y) || (op->kind == QS5_OUTPUT && !op->u)) qs5_refuse(build, "a read is missing");
  else if ((!free_x && op->x->channels != n) || (reads_y && op->y->channels != n) ||
           (op->kind == QS5_OUTPUT && op->u->channels != n))
    qs5_refuse(build, "signals with different numbers of channels");
  if ((op->kind == QS5_RECURRENCE || op->kind == QS5_SHIFT) && n % 2) qs5_refuse(build, "half a mode");
}

static void check_formats(qs5_build *build, const qs5_op *op) {
  const int pool = op->kind == QS5_MEAN_POOL || op->kind == QS5_LAST_POOL;
  if ((op->kind == QS5_RECURRENCE || pool) && op->x && op->x->type != op->to->type)
    qs5_refuse(build, "expected the format of what it reads");
  if (op->kind == QS5_RECURRENCE && op->to->low == 0) qs5_refuse(build, "a state without a sign");
}

/* -- ops --------------------------------------------------------------------------------------------------------- */

static int allowed_after_pool(qs5_kind kind) {
  return kind == QS5_DENSE || kind == QS5_TABLE || kind == QS5_QGELU || kind == QS5_ADD || kind == QS5_MULTIPLY;
}

static void check_pool(qs5_build *build, const qs5_op *op) {
  qs5_model *model = build->model;
  if (op->kind == QS5_MEAN_POOL || op->kind == QS5_LAST_POOL) {
    if (model->pool >= 0) qs5_refuse(build, "a second pool");
    model->pool = build->at;
  } else if (model->pool >= 0) {
    if (!allowed_after_pool(op->kind)) qs5_refuse(build, "cannot come after the pool");
    for (int i = 0; i < QS5_MAX_READS; ++i)
      if (op->in[i] >= 0 && op->in[i] <= model->pool) qs5_refuse(build, "reads a signal of the steps after the pool");
  }
}

static void place_state(qs5_model *model, qs5_op *op) {
  op->state_at = model->record.states;
  model->record.states += op->to->channels;
  model->bidirectional |= op->numbers[2] != 0;
}

static void add_op(qs5_build *build, qs5_op *op) {
  qs5_model *model = build->model;
  op->kind = build->spec->kind;
  op->out = build->at + 1;
  memcpy(op->in, build->spec->reads, sizeof op->in);
  memcpy(op->numbers, build->spec->numbers, sizeof op->numbers);
  describe(build, &model->signals[op->out], &build->spec->out);
  op->to = &model->signals[op->out];
  op->x = signal_read(build, 0);
  op->y = signal_read(build, 1);
  op->u = signal_read(build, 2);
  if ((int)op->kind < 0 || op->kind >= QS5_KINDS) qs5_refuse(build, "an unknown kind");
  if (!build->failed) check_channels(build, op);
  if (!build->failed) check_formats(build, op);
  if (!build->failed) check_pool(build, op);
  if (!build->failed) qs5_constants(build, op);
  if (build->failed) return;
  if (op->kind == QS5_RECURRENCE) place_state(model, op);
  op->run = kernel_of(model, op);
}

/* -- the workspace's layout -------------------------------------------------------------------------------------- */

/* The last op that reads a signal. What the pool reads, and the last signal, live to the end. */
static int32_t last_use(const qs5_model *model, int32_t signal) {
  int32_t last = signal - 1;
  for (int32_t i = signal; i < model->count; ++i)
    for (int j = 0; j < QS5_MAX_READS; ++j)
      if (model->ops[i].in[j] == signal) last = i;
  return signal == model->count || last == model->pool ? model->count : last;
}

/* When an op runs: with the head of its tail. The input is written before all ops. */
static int32_t moment(const qs5_model *model, int32_t op) {
  return op < 0 || op >= model->count ? op : model->stage_of[op];
}

/* First fit: a signal takes the place of signals that nobody reads any more. */
static int64_t free_place(const qs5_model *model, const int32_t *until, int32_t signal) {
  int64_t place = 0;
  for (int moved = 1; moved;) {
    moved = 0;
    for (int32_t other = 0; other < signal; ++other) {
      const qs5_info *a = &model->signals[signal], *b = &model->signals[other];
      const int alive = moment(model, until[other]) >= moment(model, signal - 1);
      if (!alive || place + a->stride <= b->place || b->place + b->stride <= place) continue;
      place = b->place + b->stride;
      moved = 1;
    }
  }
  return place;
}

static void place_signals(qs5_build *build) {
  qs5_model *model = build->model;
  int32_t *until = qs5_take(build, model->count + 1, sizeof *until);
  for (int32_t s = 0; until && s <= model->count; ++s) {
    qs5_info *info = &model->signals[s];
    until[s] = last_use(model, s);
    info->place = free_place(model, until, s);
    if (info->place + info->stride > model->row_bytes) model->row_bytes = info->place + info->stride;
    const int32_t wide = (int32_t)(info->stride / info->size);
    if (wide > model->max_channels) model->max_channels = wide;
  }
  for (int32_t i = 0; i < model->count; ++i) {
    const int32_t wide = model->ops[i].inputs + QS5_PAD;
    if (wide > model->max_channels) model->max_channels = (wide + QS5_PAD - 1) / QS5_PAD * QS5_PAD;
  }
}

static size_t aligned(size_t bytes) { return (bytes + 7) / 8 * 8; }

static void lay_out_record(qs5_model *model) {
  qs5_record *record = &model->record;
  const int has_pool = model->pool < model->count;
  record->pooled = has_pool ? model->ops[model->pool].to->channels : 0;
  record->total_at = aligned((size_t)record->states * sizeof(int16_t));
  record->last_at = record->total_at + (size_t)record->pooled * sizeof(int64_t);
  record->steps_at = aligned(record->last_at + (size_t)record->pooled * sizeof(int32_t));
  record->bytes = record->steps_at + sizeof(int64_t);
}

/* -- the model --------------------------------------------------------------------------------------------------- */

static void add_input(qs5_build *build, const qs5_input_spec *input) {
  qs5_model *model = build->model;
  describe(build, &model->signals[0], &input->out);
  model->input_multipliers = input->multipliers;
  model->input_shift = input->shift;
  if (build->failed || !input->multipliers) return;
  if (input->multipliers != input->out.channels || input->shift < 1 || input->shift > 62) {
    qs5_refuse(build, "expected a multiplier for every channel and a shift of 1 to 62");
    return;
  }
  model->input_M = qs5_take(build, input->multipliers, sizeof *model->input_M);
  model->input_offset = qs5_take(build, input->multipliers, sizeof *model->input_offset);
  const int64_t half = (int64_t)1 << (input->shift - 1), largest = (int64_t)1 << 61;
  for (int32_t i = 0; model->input_M && model->input_offset && i < input->multipliers; ++i) {
    const int64_t M = input->M[i], offset = input->offset[i];
    if (M < -INT32_MAX || M > INT32_MAX || offset < -largest || offset > largest) qs5_refuse(build, "out of range");
    else model->input_M[i] = M, model->input_offset[i] = offset + half;
  }
}

static void finish(qs5_build *build) {
  qs5_model *model = build->model;
  if (model->pool < 0) model->pool = model->count;
  qs5_fuse(model, model->fused);
  if (model->level == QS5_AVX512VNNI && !model->counting) qs5_line_up(build);
  place_signals(build);
  lay_out_record(model);
  model->accumulate = kernels_of(model->level)->accumulate;
}

qs5_model *qs5_model_new(const qs5_input_spec *input, const qs5_op_spec *ops, int32_t count, qs5_level level,
                         int options, char *error, size_t error_size) {
  qs5_build build = {calloc(1, sizeof *build.model), NULL, -1, error, error_size, 0};
  if (!build.model) return snprintf(error, error_size, "out of memory"), NULL;
  qs5_model *model = build.model;
  if (count < 1 || count > QS5_MAX_OPS) qs5_refuse(&build, "expected 1 to 4096 ops");
  else if (!qs5_level_available(level)) qs5_refuse(&build, "this processor lacks the instruction set");
  else if (-1 >> 1 != -1) qs5_refuse(&build, "a compiler whose >> is not arithmetic");
  else {
    model->level = level;
    model->counting = options & QS5_COUNTING;
    model->masked = options & QS5_MASKED;
    model->fused = level == QS5_AVX512VNNI && !(options & (QS5_COUNTING | QS5_UNFUSED));
    model->count = count;
    model->pool = -1;
    model->ops = qs5_take(&build, count, sizeof *model->ops);
    model->stage_of = qs5_take(&build, count, sizeof *model->stage_of);
    model->signals = qs5_take(&build, count + 1, sizeof *model->signals);
    if (!build.failed) add_input(&build, input);
  }
  for (int32_t i = 0; i < count && !build.failed; ++i) {
    build.at = i;
    build.spec = &ops[i];
    add_op(&build, &model->ops[i]);
  }
  if (!build.failed) finish(&build);
  if (build.failed) return qs5_model_free(model), NULL;
  return model;
}

void qs5_model_free(qs5_model *model) {
  if (!model) return;
  for (size_t i = 0; i < model->owned_count; ++i) free(model->owned[i]);
  free(model->owned);
  free(model);
}

int32_t qs5_input_channels(const qs5_model *model) { return model->signals[0].channels; }
int32_t qs5_output_channels(const qs5_model *model) { return model->signals[model->count].channels; }
int qs5_has_pool(const qs5_model *model) { return model->pool < model->count; }
int qs5_is_bidirectional(const qs5_model *model) { return model->bidirectional; }
int32_t qs5_signal_count(const qs5_model *model) { return model->count + 1; }
qs5_record qs5_record_layout(const qs5_model *model) { return model->record; }
