/* What must not get through: a rescaling that somebody wrote in floating point. */
#include "mcu.h"

int main(void)
{
    volatile int32_t acc = 1000;
    const int32_t result = (int32_t)((float)acc * 0.375f);
    mcu_row("result", &result, 1);
    return 0;
}
