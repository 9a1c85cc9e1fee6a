#include "known.h"

    .macro function name
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
#ifdef __arm__
    .thumb_func
#endif
\name:
    .endm

#ifdef __arm__
    .syntax unified
    .thumb

    function known_loop
    ldr r0, [r0]
1:  subs r0, #1
    bne 1b
    bx lr

    function known_frame
    sub sp, #FRAME_BYTES
    str r0, [sp]
    add sp, #FRAME_BYTES
    bx lr
#else
    function known_loop
    lw a0, 0(a0)
1:  addi a0, a0, -1
    bnez a0, 1b
    ret

    function known_frame
    addi sp, sp, -FRAME_BYTES
    sw a0, 0(sp)
    addi sp, sp, FRAME_BYTES
    ret
#endif
