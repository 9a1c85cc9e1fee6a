/* Golden vectors of model: every answer must equal the reference's. 1 at a difference. */
#include <stdio.h>

#include "model.h"

static const uint32_t lengths[2] = {
    0x00000001u, 0x00000005u,
};
static const uint8_t raw[6][2] = {
    {217, 163},
    {130, 69},
    {78, 10},
    {19, 4},
    {44, 208},
    {166, 233},
};
static const int16_t expected[2][2] = {
    {32767, -32767},
    {-32767, 32767},
};

static int differs(unsigned long at, const int16_t *got, const int16_t *want)
{
    for (unsigned i = 0; i < QS5_CLASSES; i++) {
        if (got[i] != want[i]) {
            printf("answer %lu, number %u: expected %ld, got %ld\n", at, i, (long)want[i], (long)got[i]);
            return 1;
        }
    }
    return 0;
}

int main(void)
{
    static qs5_state state;
    uint32_t k = 0;
    qs5_init(&state);
    for (unsigned s = 0; s < 2u; s++) {
        int16_t logits[QS5_CLASSES];
        const uint32_t end = k + lengths[s];
        qs5_reset(&state);
        for (; k < end; k++) {
            qs5_step(&state, raw[k]);
        }
        (void)qs5_finish(&state, logits);
        if (differs(s, logits, expected[s])) {
            return 1;
        }
    }
    printf("ok: 2 sequences, every answer as expected\n");
    return 0;
}
