/* Reset, faults and semihosting of the Cortex-M cores. Only ARMv6-M instructions, so that Cortex-M0 runs the same. */
#include "harness.h"

    .syntax unified
    .thumb

    /* No interrupt is ever enabled: the table ends after the sixteen system vectors. */
    .section .vectors, "a", %progbits
    .word mcu_stack_top
    .word mcu_reset
    .rept 14
    .word mcu_fault
    .endr

    .macro function name
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
\name:
    .endm

    function mcu_reset
#ifdef __ARM_FEATURE_MVE
    /* Coprocessors 10 and 11, off at reset: vector instructions fault (NOCP) until CPACR enables them. */
    ldr r0, =0xE000ED88
    ldr r1, [r0]
    ldr r2, =0x00F00000
    orrs r1, r2
    str r1, [r0]
    dsb
    isb
#endif
    ldr r0, =mcu_data_load
    ldr r1, =mcu_data_start
    ldr r2, =mcu_data_end
    b 2f
1:  ldr r3, [r0]
    str r3, [r1]
    adds r0, #4
    adds r1, #4
2:  cmp r1, r2
    blo 1b
    ldr r1, =mcu_bss_start
    ldr r2, =mcu_bss_end
    movs r3, #0
    b 4f
3:  str r3, [r1]
    adds r1, #4
4:  cmp r1, r2
    blo 3b
    bl mcu_start
    .ltorg

    /* r0: the exception's number. r1: where it happened, from the frame that the core pushed: word 6. The report runs on
       a fresh stack: the old one may be what faulted. */
    function mcu_fault
    mov r0, sp
    ldr r1, [r0, #24]
    ldr r2, =mcu_stack_top
    mov sp, r2
    mrs r0, ipsr
    bl mcu_report_fault
    .ltorg

    function mcu_semihosting
    bkpt 0xab
    bx lr

    /* libgcc's 64-bit division names this unwinder, which would bring a C library. Nothing is ever unwound. */
    function __aeabi_unwind_cpp_pr0
    bx lr
