/* Output, exit, measurement: the part of the harness that needs no assembly. board.h is generated for each core. */
#include "harness.h"
#include "board.h"
#include "mcu.h"

/* Semihosting operations, "Semihosting for AArch32 and AArch64", Arm IHI 0074; RISC-V took them over. */
#define SYS_WRITE0 0x04u
#define SYS_EXIT_EXTENDED 0x20u
#define APPLICATION_EXIT 0x20026u

static void put(const char *text)
{
    mcu_semihosting(SYS_WRITE0, text);
}

/* By subtraction of powers of ten: a division would bring libgcc's into every Cortex-M0 program. */
static void put_unsigned(uint32_t value)
{
    static const uint32_t powers[] = {1000000000u, 100000000u, 10000000u, 1000000u, 100000u,
                                      10000u,      1000u,      100u,      10u,      1u};
    char digits[11];
    uint32_t used = 0;
    for (uint32_t i = 0; i < 10u; i++) {
        char digit = '0';
        while (value >= powers[i]) {
            value -= powers[i];
            digit++;
        }
        if (digit != '0' || used != 0u || i == 9u) {
            digits[used++] = digit;
        }
    }
    digits[used] = '\0';
    put(digits);
}

static void put_signed(int32_t value)
{
    if (value < 0) {
        put("-");
        put_unsigned(0u - (uint32_t)value);
    } else {
        put_unsigned((uint32_t)value);
    }
}

void mcu_text(const char *line)
{
    put(line);
    put("\n");
}

void mcu_row(const char *key, const int32_t *values, uint32_t count)
{
    put(key);
    for (uint32_t i = 0; i < count; i++) {
        put(" ");
        put_signed(values[i]);
    }
    put("\n");
}

void mcu_cost_row(const char *key, mcu_cost cost)
{
    put("cost ");
    put(key);
    put(" ");
    put_unsigned(cost.ticks);
    put(" ");
    put_unsigned(cost.stack_bytes);
    put("\n");
}

static void leave(int status)
{
    const uint32_t block[2] = {APPLICATION_EXIT, (uint32_t)status};
    /* The emulator's own failures have exit codes too; this line proves that the program got here. */
    put("exit ");
    put_signed(status);
    put("\n");
    for (;;) {
        mcu_semihosting(SYS_EXIT_EXTENDED, block);
    }
}

void mcu_exit(int status)
{
    /* The lowest word of the stack is painted from the start on. */
    leave(mcu_stack_limit[0] == MCU_PAINT ? status : MCU_STATUS_STACK_OVERFLOW);
}

void mcu_report_fault(uint32_t cause, uint32_t program_counter)
{
    put("fault: cause ");
    put_unsigned(cause);
    put(", program counter ");
    put_unsigned(program_counter);
    put("\n");
    leave(MCU_STATUS_FAULT);
}

mcu_cost mcu_measure(void (*call)(void *), void *argument)
{
    mcu_window_record record;
    mcu_cost cost;
    mcu_window(call, argument, &record);
    if (record.stack_bytes >= record.room_bytes) {
        leave(MCU_STATUS_STACK_OVERFLOW);
    }
    cost.ticks = MCU_COUNTS_DOWN ? record.before - record.after : record.after - record.before;
    cost.stack_bytes = record.stack_bytes;
    return cost;
}

void mcu_start(void)
{
    static const uint32_t writes[][2] = {MCU_COUNTER_START};
    for (uint32_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        if (writes[i][0] != 0u) {
            *(volatile uint32_t *)writes[i][0] = writes[i][1];
        }
    }
    mcu_stack_limit[0] = MCU_PAINT;
    mcu_exit(main());
}
