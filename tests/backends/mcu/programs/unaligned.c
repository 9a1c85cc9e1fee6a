#include "mcu.h"

static uint32_t words[2];

int main(void)
{
    /* Volatile, or the compiler would see that the address is odd and write bytes. */
    volatile uintptr_t address = (uintptr_t)words + 1u;
    *(volatile uint32_t *)address = 1u;
    return 0;
}
