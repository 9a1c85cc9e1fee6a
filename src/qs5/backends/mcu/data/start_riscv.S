/* Reset, traps and semihosting of RV32. */
#include "harness.h"

    .option arch, +zicsr

    .macro function name
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
\name:
    .endm

    /* First in ROM: where the emulator starts. */
    .section .vectors, "ax", %progbits
    .global mcu_reset
mcu_reset:
    /* Relaxed, this would become gp = gp + 0. */
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, mcu_stack_top
    la t0, mcu_trap
    csrw mtvec, t0

    la a0, mcu_data_load
    la a1, mcu_data_start
    la a2, mcu_data_end
    j 2f
1:  lw a3, 0(a0)
    sw a3, 0(a1)
    addi a0, a0, 4
    addi a1, a1, 4
2:  bltu a1, a2, 1b
    la a1, mcu_bss_start
    la a2, mcu_bss_end
    j 4f
3:  sw zero, 0(a1)
    addi a1, a1, 4
4:  bltu a1, a2, 3b
    call mcu_start

    /* mtvec wants four bytes' alignment. The report runs on a fresh stack: the old one may be what faulted. */
    .section .text.mcu_trap, "ax", %progbits
    .balign 4
mcu_trap:
    la sp, mcu_stack_top
    csrr a0, mcause
    csrr a1, mepc
    call mcu_report_fault

    /* The three instructions that mark a semihosting call must be uncompressed and on one page: "RISC-V Semihosting",
       version 0.4, section 1. */
    .section .text.mcu_semihosting, "ax", %progbits
    .global mcu_semihosting
    .type mcu_semihosting, %function
    .balign 16
    .option push
    .option norvc
mcu_semihosting:
    slli zero, zero, 0x1f
    ebreak
    srai zero, zero, 7
    ret
    .option pop
