/* model: an integer-only S5 model, written by qs5. Do not edit.
 *
 * task: tiny
 * spec: W8A8Abar16
 * widths: a16 b4 c2
 * input: 2 a step, raw samples, 0 to 255
 * classes: yes, no
 * channels: left, right
 * made by: test_golden.py
 * content: SHA-256 5ac404b83896e6c2c4a7a68fe4ffddfa5d014eb959e155401e5b0eebbe147d8a, arithmetic of SPEC version 1
 */
#ifndef QS5_MODEL_H
#define QS5_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define QS5_AT_LEAST(n) n
#else
#define QS5_AT_LEAST(n) static n /* an array of n elements and more */
#endif

#define QS5_HASH "5ac404b83896e6c2c4a7a68fe4ffddfa5d014eb959e155401e5b0eebbe147d8a"
#define QS5_SPEC_VERSION 1
#define QS5_CHANNELS 2
#define QS5_CLASSES 2
#define QS5_MAX_STEPS 1000 /* of one sequence: for these, sums are proved not to overflow */

extern const char *const qs5_classes[2];
extern const char *const qs5_channels[2];
extern const char *const qs5_provenance[1];

/* Everything that changes. The caller owns it; its members are for the functions below alone. */
typedef struct {
    int32_t sum[3];
    uint32_t steps;
    int16_t layers_0_ssm_state[16];
    int16_t work[64];
} qs5_state;

/* Once, before anything else. */
void qs5_init(qs5_state *state);

/* Before every further sequence. */
void qs5_reset(qs5_state *state);

/* One step of the sequence. Beyond QS5_MAX_STEPS of them it changes the state but is not counted:
 * qs5_finish then answers for the first QS5_MAX_STEPS. */
void qs5_step(qs5_state *state, const uint8_t raw[QS5_AT_LEAST(2)]);

/* The answer to the steps so far: the index of the largest logit, the first one of equals, or -1 before the first
 * step. The sequence may go on. */
int qs5_finish(qs5_state *state, int16_t logits[QS5_AT_LEAST(2)]);

#ifdef __cplusplus
}
#endif

#endif
