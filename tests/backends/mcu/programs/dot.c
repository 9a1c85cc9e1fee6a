/* A 16-bit dot product in plain C, and with SMLAD and MVE where the core has them: all must agree. */
#include <string.h>

#include "mcu.h"
#include "vectors.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#define HAS_DSP 1
#else
#define HAS_DSP 0
#endif
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#include <arm_mve.h>
#define HAS_MVE 1
#else
#define HAS_MVE 0
#endif

#define LENGTH ((int32_t)(sizeof x / sizeof x[0]))

typedef struct {
    int32_t length;
    int32_t result;
} job;

/* What a compiler makes of it by itself must not blur the comparison. */
__attribute__((optimize("no-tree-vectorize"))) static void plain(void *argument)
{
    job *j = argument;
    int32_t sum = 0;
    for (int32_t i = 0; i < j->length; i++) {
        sum += (int32_t)x[i] * y[i];
    }
    j->result = sum;
}

#if HAS_DSP
static int16x2_t two(const int16_t *from)
{
    int16x2_t pair; /* memcpy: the one way to read two at once that C allows; it becomes a single load */
    memcpy(&pair, from, sizeof pair);
    return pair;
}

static void dsp(void *argument)
{
    job *j = argument;
    int32_t sum = 0, i = 0;
    for (; i + 2 <= j->length; i += 2) {
        sum = __smlad(two(x + i), two(y + i), sum);
    }
    j->result = i < j->length ? sum + (int32_t)x[i] * y[i] : sum;
}
#endif

#if HAS_MVE
static void mve(void *argument)
{
    job *j = argument;
    int32_t sum = 0;
    for (int32_t i = 0; i < j->length; i += 8) {
        const mve_pred16_t lanes = vctp16q((uint32_t)(j->length - i));
        sum = vmladavaq_p_s16(sum, vldrhq_z_s16(x + i, lanes), vldrhq_z_s16(y + i, lanes), lanes);
    }
    j->result = sum;
}
#endif

static void show(const char *key, void (*call)(void *))
{
    for (job j = {1, 0}; j.length <= LENGTH; j.length++) {
        const mcu_cost cost = mcu_measure(call, &j);
        mcu_row(key, &j.result, 1);
        if (j.length == LENGTH) {
            mcu_cost_row(key, cost);
        }
    }
}

int main(void)
{
    const int32_t features[] = {HAS_DSP, HAS_MVE};
    mcu_row("features", features, 2);
    show("plain", plain);
#if HAS_DSP
    show("dsp", dsp);
#endif
#if HAS_MVE
    show("mve", mve);
#endif
    return 0;
}
