/* Recursion that fills more and more of the stack; the argument says how deep. */
#include "mcu.h"

static int32_t deep(int32_t levels)
{
    volatile int32_t frame[16];
    for (int32_t i = 0; i < 16; i++) {
        frame[i] = levels;
    }
    return levels == 0 ? 0 : deep(levels - 1) + frame[levels % 16];
}

static void call(void *levels)
{
    *(int32_t *)levels = deep(*(int32_t *)levels);
}

int main(void)
{
    int32_t levels = LEVELS;
#if MEASURED
    mcu_cost_row("deep", mcu_measure(call, &levels));
#else
    call(&levels);
#endif
    return 0;
}
