/* Between the C and the assembly files of the harness; not for programs. */
#ifndef QS5_MCU_HARNESS_H
#define QS5_MCU_HARNESS_H

/* What unused stack is filled with: an odd address in no region, unlikely as data. */
#define MCU_PAINT 0xA5C3A5C3

#define MCU_STATUS_STACK_OVERFLOW 98
#define MCU_STATUS_FAULT 99

#ifndef __ASSEMBLER__

#include <stdint.h>

/* Written by mcu_window in this order; room_bytes is the stack that was free at the call. */
typedef struct {
    uint32_t before;
    uint32_t after;
    uint32_t stack_bytes;
    uint32_t room_bytes;
} mcu_window_record;

/* Assembly: window_arm.S, window_riscv.S. */
void mcu_window(void (*call)(void *), void *argument, mcu_window_record *record);
/* Assembly: start_arm.S, start_riscv.S. */
void mcu_semihosting(uint32_t operation, const void *argument);

/* Called by the start-up code. */
void mcu_start(void);
void mcu_report_fault(uint32_t cause, uint32_t program_counter);

/* The program's. */
int main(void);

/* Linker script: ends of the stack. */
extern uint32_t mcu_stack_limit[];

#endif
#endif
