/* The part of <string.h> that memory.c has: Debian's RISC-V compiler comes without a C library. */
#ifndef QS5_MCU_STRING_H
#define QS5_MCU_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);
int memcmp(const void *left, const void *right, size_t count);

#endif
