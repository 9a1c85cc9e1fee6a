/* Between build.c, which makes a model, and constants.c, which fills its ops. */
#ifndef QS5_BUILD_H
#define QS5_BUILD_H

#include "plan.h"

typedef struct {
  qs5_model *model;
  const qs5_op_spec *spec; /* of the op at hand */
  int32_t at;              /* its number, -1 for the input */
  char *error;
  size_t error_size;
  int failed;
} qs5_build;

/* Notes the first reason why the model is refused. */
void qs5_refuse(qs5_build *build, const char *reason);
/* Zeroed, aligned to QS5_PAD bytes, with a multiple of QS5_PAD elements; lives as long as the model. */
void *qs5_take(qs5_build *build, int64_t count, size_t size);
void qs5_constants(qs5_build *build, qs5_op *op);
/* Decides which ops run together (fuse.c): none do unless `fused`. */
void qs5_fuse(qs5_model *model, int fused);
/* Moves the constants of AVX-512's kernels to where one step reads them in order (line_up.c). */
void qs5_line_up(qs5_build *build);

#endif
