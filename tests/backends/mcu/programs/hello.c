/* What the harness must have set up before main: data, bss, the memory functions, libgcc's 64-bit division. */
#include <string.h>

#include "mcu.h"

static volatile int32_t initialized[3] = {7, -8, 2147483647};
static volatile int32_t zeroed[5];

static void show_memory_functions(volatile uint32_t *size)
{
    char text[8] = "abcdefg";
    char other[8];
    memcpy(other, text, *size);
    memmove(text + 1, text, *size - 2u);
    memset(other, 'x', *size - 6u);
    mcu_text(text);
    mcu_text(other);
    const int32_t order[] = {memcmp(text, other, *size), memcmp(other, text, *size), memcmp(text, text, *size)};
    mcu_row("order", order, 3);
}

int main(void)
{
    volatile uint32_t size = 8;
    volatile uint64_t dividend = 1000000000000u, divisor = 1000003u;
    int32_t values[8];
    mcu_text("hello");
    for (uint32_t i = 0; i < 3u; i++) {
        values[i] = initialized[i];
    }
    for (uint32_t i = 0; i < 5u; i++) {
        values[3u + i] = zeroed[i];
    }
    mcu_row("statics", values, 8);
    const int32_t extremes[] = {-2147483647 - 1, -10, 0, 10, 1000000000};
    mcu_row("extremes", extremes, 5);
    const int32_t quotient = (int32_t)(dividend / divisor);
    mcu_row("quotient", &quotient, 1);
    show_memory_functions(&size);
    return 7;
}
