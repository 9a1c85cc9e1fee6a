/* The four functions that GCC may call even where the source does not, so that no C library is needed.
 * Compiled with -fno-builtin and without loop recognition, or each would become a call of itself. */
#include <string.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    while (count-- != 0u) {
        *t++ = *f++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    if (t <= f) {
        return memcpy(to, from, count);
    }
    while (count-- != 0u) {
        t[count] = f[count];
    }
    return to;
}

void *memset(void *to, int value, size_t count)
{
    unsigned char *t = to;
    while (count-- != 0u) {
        *t++ = (unsigned char)value;
    }
    return to;
}

int memcmp(const void *left, const void *right, size_t count)
{
    const unsigned char *l = left;
    const unsigned char *r = right;
    for (; count != 0u; count--, l++, r++) {
        if (*l != *r) {
            return *l < *r ? -1 : 1;
        }
    }
    return 0;
}
