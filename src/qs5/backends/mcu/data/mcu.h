/* What a program may ask of the harness. Everything is plain C99 and free of floating point, allocation and division,
 * so that what `nm` and the sizes show comes from the program under test. */
#ifndef QS5_MCU_H
#define QS5_MCU_H

#include <stdint.h>

/* What one call took. `ticks` are of the board's counter; the Python side turns them into instructions.
 * `stack_bytes` is how far below the caller's stack pointer the call reached. */
typedef struct {
    uint32_t ticks;
    uint32_t stack_bytes;
} mcu_cost;

/* Calls call(argument) and measures it. The call goes through a pointer into another translation unit, so the
 * compiler can neither inline it nor move it out of the measured window. */
mcu_cost mcu_measure(void (*call)(void *), void *argument);

/* One line of output: the text as it is; "key v0 v1 ..." in decimal; "cost key ticks stack_bytes". */
void mcu_text(const char *line);
void mcu_row(const char *key, const int32_t *values, uint32_t count);
void mcu_cost_row(const char *key, mcu_cost cost);

/* Ends the emulation. Returning from main does the same. status is 0 to 95; above are the harness's own:
 * 98 stack overflow, 99 processor fault. */
void mcu_exit(int status);

#endif
