/* Runs one integer model on every instruction set, fused or not, counting or not, in blocks of several sizes, and compares
 * with the answers in the file. Compiled together with native/engine under sanitizers by test_sanitized.py, which also
 * writes the file: int32 numbers, and arrays as they are, in the order in which this reads them. */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *file;
static qs5_op_spec ops[QS5_MAX_OPS];
static qs5_input_spec input;
static int32_t count;

static void read_bytes(void *to, size_t bytes) {
  if (bytes && fread(to, 1, bytes, file) != bytes) exit(3);
}

static int32_t number(void) {
  int32_t v;
  read_bytes(&v, sizeof v);
  return v;
}

static void numbers(int32_t *to, int n) {
  for (int i = 0; i < n; ++i) to[i] = number();
}

static void *bytes_of(size_t bytes) {
  void *to = malloc(bytes ? bytes : 1); /* no byte to spare: the sanitizer sees reads behind it */
  if (!to) exit(3);
  read_bytes(to, bytes);
  return to;
}

static qs5_signal signal(void) {
  qs5_signal s;
  s.channels = number(), s.bits = number(), s.is_signed = number();
  return s;
}

static qs5_array array(void) {
  static const size_t sizes[] = {1, 1, 2, 2, 4};
  qs5_array a;
  a.type = (qs5_type)number();
  a.count = number();
  a.data = bytes_of((size_t)a.count * sizes[a.type]);
  return a;
}

static void read_model(void) {
  input.out = signal();
  input.multipliers = number();
  input.shift = number();
  input.M = bytes_of((size_t)input.multipliers * sizeof(int64_t));
  input.offset = bytes_of((size_t)input.multipliers * sizeof(int64_t));
  count = number();
  for (int32_t i = 0; i < count; ++i) {
    ops[i].kind = (qs5_kind)number();
    numbers(ops[i].reads, QS5_MAX_READS);
    ops[i].out = signal();
    numbers(ops[i].numbers, QS5_MAX_NUMBERS);
    for (int32_t j = 0, n = number(); j < n; ++j) ops[i].arrays[j] = array();
  }
}

static void free_model(void) {
  free((void *)input.M);
  free((void *)input.offset);
  for (int32_t i = 0; i < count; ++i)
    for (int j = 0; j < QS5_MAX_ARRAYS; ++j) free((void *)ops[i].arrays[j].data);
}

static int differ(const qs5_model *model, int64_t rows, int64_t sequences, int64_t steps, const int32_t *raw,
                  const int32_t *expected) {
  const int pool = qs5_has_pool(model);
  const size_t codes = (size_t)(sequences * (pool ? 1 : steps) * qs5_output_channels(model));
  unsigned char *records = calloc((size_t)sequences, qs5_record_layout(model).bytes);
  int32_t *outputs = malloc(codes * sizeof *outputs);
  qs5_work *work = qs5_work_new(model, rows);
  if (!records || !outputs || !work) exit(3);
  qs5_run(model, work, sequences, steps, raw, QS5_I32, NULL, records, pool ? NULL : outputs);
  if (pool) qs5_answer(model, work, sequences, records, outputs);
  const int differs = memcmp(outputs, expected, codes * sizeof *outputs) != 0;
  qs5_work_free(work);
  free(outputs);
  free(records);
  return differs;
}

int main(int argc, char **argv) {
  file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  if (!file) return 3;
  read_model();
  const int64_t sequences = number(), steps = number(), blocks[] = {1, 5, steps};
  int32_t *raw = bytes_of((size_t)(sequences * steps * input.out.channels) * sizeof *raw);
  int32_t *expected = bytes_of((size_t)number() * sizeof *expected);
  int runs = 0;
  for (int level = 0; level < QS5_LEVELS; ++level)
    for (int options = 0; options < 3 && qs5_level_available((qs5_level)level); ++options) {
      char error[160] = "";
      qs5_model *model = qs5_model_new(&input, ops, count, (qs5_level)level, options, error, sizeof error);
      if (!model) return puts(error), 2;
      for (int b = qs5_is_bidirectional(model) ? 2 : 0; b < 3; ++b, ++runs)
        if (differ(model, blocks[b], sequences, steps, raw, expected))
          return printf("%s, options %d, blocks of %d rows: other codes\n", qs5_level_name((qs5_level)level), options,
                        (int)blocks[b]), 1;
      qs5_model_free(model);
    }
  printf("ok: %d runs\n", runs);
  free(raw);
  free(expected);
  free_model();
  fclose(file);
  return 0;
}
