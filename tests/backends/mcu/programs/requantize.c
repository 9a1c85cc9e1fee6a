/* floor((acc M + 2^(shift-1)) / 2^shift), clipped, by 32-bit operations only; see qs5.numerics.multiplier.
 * >> of a negative int32_t is arithmetic in every compiler that matters here; C99 leaves it to the implementation. */
#include "mcu.h"
#include "vectors.h"

#define COUNT (sizeof acc / sizeof acc[0])

static int32_t clip(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

static int32_t requantize(int32_t value, int32_t multiplier, int32_t shift, int32_t low, int32_t high)
{
    const int32_t left = shift < 17 ? 17 - shift : 0;
    const int32_t limit = 2147483647 >> left;
    /* What this clips saturates below as well. A product, since << of a negative number is undefined. */
    const int32_t scaled = clip(value, -limit, limit) * (1 << left);
    const int32_t s = shift + left;
    const int32_t high_half = scaled >> 16;
    const int32_t low_half = scaled & 0xFFFF;
    const int32_t t = high_half * multiplier + ((low_half * multiplier) >> 16);
    return clip((t + (1 << (s - 17))) >> (s - 16), low, high);
}

static void all(void *results)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        ((int32_t *)results)[i] = requantize(acc[i], multiplier[i], shift[i], -32767, 32767);
    }
}

int main(void)
{
    int32_t results[COUNT];
    mcu_cost_row("all", mcu_measure(all, results));
    mcu_row("result", results, COUNT);
    return 0;
}
