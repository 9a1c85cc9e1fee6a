/* Measures known.S. The deep call comes between shallow ones: each measurement must start from fresh paint. */
#include "known.h"
#include "mcu.h"

int main(void)
{
    uint32_t counts[] = {1, 2, 1000, 1000000, 20000000};
    mcu_cost_row("frame", mcu_measure(known_frame, counts));
    for (uint32_t i = 0; i < 5u; i++) {
        mcu_cost_row("loop", mcu_measure(known_loop, &counts[i]));
    }
    mcu_cost_row("frame", mcu_measure(known_frame, counts));
    return 0;
}
