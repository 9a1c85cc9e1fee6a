/* Reads raw samples from stdin: @channels a line make a step, an empty line ends a sequence.
 * Prints @printed. Lines that begin with # are comments. */
#include <stdio.h>
#include <stdlib.h>

#include "@name.h"

#define LOW (@low)
#define HIGH @high

static unsigned long line_number = 1;

static void fail(const char *why)
{
    fprintf(stderr, "line %lu: %s\n", line_number, why);
    exit(2);
}

/* The next number of a line. 0 at the end of the line, -1 at the end of the input, 1 for a number. */
static int next_value(long *value)
{
    char digits[24];
    size_t used = 0;
    char *end;
    int c = getchar();
    while (c == ' ' || c == '\t' || c == '\r' || c == ',') {
        c = getchar();
    }
    while (c == '#') {
        while (c != '\n' && c != EOF) {
            c = getchar();
        }
        line_number++;
        c = getchar();
    }
    if (c == EOF || c == '\n') {
        return c == EOF ? -1 : 0;
    }
    while (c != EOF && c != ' ' && c != '\t' && c != '\r' && c != '\n' && c != ',') {
        if (used + 1 == sizeof digits) {
            fail("expected an integer");
        }
        digits[used++] = (char)c;
        c = getchar();
    }
    if (c != EOF) {
        (void)ungetc(c, stdin);
    }
    digits[used] = '\0';
    *value = strtol(digits, &end, 10);
    if (*end != '\0') {
        fail("expected an integer");
    }
    return 1;
}

/* One line. 1 for a step, 0 for an empty line, -1 at the end of the input. */
static int read_step(@raw raw[@{P}_AT_LEAST(@{P}_CHANNELS)])
{
    unsigned count = 0;
    int kind;
    long value;
    while ((kind = next_value(&value)) == 1) {
        if (value < LOW || value > HIGH) {
            @beyond
        }
        if (count == @{P}_CHANNELS) {
            fail("too many samples");
        }
        raw[count++] = (@raw)value;
    }
    if (count != 0 && count != @{P}_CHANNELS) {
        fail("too few samples");
    }
    if (kind == 0) {
        line_number++;
    }
    return count != 0 ? 1 : kind;
}
