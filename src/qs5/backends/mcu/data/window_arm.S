/* void mcu_window(void (*call)(void *), void *argument, mcu_window_record *record)
 *
 * Paints the free stack, calls call(argument) between two readings of the counter, and looks how far the paint is gone.
 * In assembly, so that what lies between the two readings is the same for every core and compiler setting:
 * 7 instructions besides the call (`WINDOW_INSTRUCTIONS` of boards.py). */
#include "harness.h"
#include "board.h"

    .syntax unified
    .thumb

    /* Five instructions. The write makes the nRF51 timer copy its count to where it can be read; on the other boards it
       hits a register where it does nothing, which keeps the sequence the same. */
    .macro read_counter to
    ldr r1, =MCU_COUNTER_CAPTURE
    movs r2, #1
    str r2, [r1]
    ldr r1, =MCU_COUNTER_VALUE
    ldr \to, [r1]
    .endm

    .section .text.mcu_window, "ax", %progbits
    .global mcu_window
    .type mcu_window, %function
    .thumb_func
mcu_window:
    push {r3, r4, r5, r6, r7, lr}
    mov r4, r0
    mov r5, r1
    mov r6, r2

    ldr r0, =mcu_stack_limit
    ldr r1, =MCU_PAINT
    mov r2, sp
1:  str r1, [r0]
    adds r0, #4
    cmp r0, r2
    blo 1b

    read_counter r7
    mov r0, r5
    blx r4
    read_counter r3

    str r7, [r6, #0]
    str r3, [r6, #4]

    ldr r0, =mcu_stack_limit
    ldr r1, =MCU_PAINT
    mov r2, sp
    subs r4, r2, r0
2:  ldr r3, [r0]
    cmp r3, r1
    bne 3f
    adds r0, #4
    cmp r0, r2
    blo 2b
3:  subs r2, r2, r0
    str r2, [r6, #8]
    str r4, [r6, #12]
    pop {r3, r4, r5, r6, r7, pc}
    .ltorg
