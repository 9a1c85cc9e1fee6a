/* void mcu_window(void (*call)(void *), void *argument, mcu_window_record *record)
 *
 * As window_arm.S; the counter is the core's own, of retired instructions. 3 instructions besides the call lie between the
 * two readings. */
#include "harness.h"

    .option arch, +zicsr

    .section .text.mcu_window, "ax", %progbits
    .global mcu_window
    .type mcu_window, %function
mcu_window:
    addi sp, sp, -16
    sw ra, 12(sp)
    sw s0, 8(sp)
    sw s1, 4(sp)
    mv s0, a2
    mv t3, a0

    la t0, mcu_stack_limit
    li t1, MCU_PAINT
1:  sw t1, 0(t0)
    addi t0, t0, 4
    bltu t0, sp, 1b

    csrr s1, minstret
    mv a0, a1
    jalr t3
    csrr t2, minstret

    sw s1, 0(s0)
    sw t2, 4(s0)

    la t0, mcu_stack_limit
    li t1, MCU_PAINT
    sub t3, sp, t0
2:  lw t2, 0(t0)
    bne t2, t1, 3f
    addi t0, t0, 4
    bltu t0, sp, 2b
3:  sub t0, sp, t0
    sw t0, 8(s0)
    sw t3, 12(s0)
    lw ra, 12(sp)
    lw s0, 8(sp)
    lw s1, 4(sp)
    addi sp, sp, 16
    ret
