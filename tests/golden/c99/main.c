/* Reads raw samples from stdin: 2 a line make a step, an empty line ends a sequence.
 * Prints one line a sequence: the class and the logits. Lines that begin with # are comments. */
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

#define LOW (0)
#define HIGH 255

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
static int read_step(uint8_t raw[QS5_AT_LEAST(QS5_CHANNELS)])
{
    unsigned count = 0;
    int kind;
    long value;
    while ((kind = next_value(&value)) == 1) {
        if (value < LOW || value > HIGH) {
            fail("a sample is out of range");
        }
        if (count == QS5_CHANNELS) {
            fail("too many samples");
        }
        raw[count++] = (uint8_t)value;
    }
    if (count != 0 && count != QS5_CHANNELS) {
        fail("too few samples");
    }
    if (kind == 0) {
        line_number++;
    }
    return count != 0 ? 1 : kind;
}

static void print_answer(int label, const int16_t logits[QS5_AT_LEAST(QS5_CLASSES)])
{
    printf("%s", qs5_classes[label]);
    for (unsigned i = 0; i < QS5_CLASSES; i++) {
        printf(i == 0 ? "\t%ld" : " %ld", (long)logits[i]);
    }
    printf("\n");
}

int main(void)
{
    static qs5_state state;
    uint8_t raw[QS5_CHANNELS];
    int16_t logits[QS5_CLASSES];
    unsigned long steps = 0;
    int kind;
    qs5_init(&state);
    do {
        kind = read_step(raw);
        if (kind == 1) {
            if (steps == QS5_MAX_STEPS) {
                fail("the sequence is too long: lower the model with a larger --max-length");
            }
            qs5_step(&state, raw);
            steps++;
        } else if (steps != 0) {
            print_answer(qs5_finish(&state, logits), logits);
            qs5_reset(&state);
            steps = 0;
        }
    } while (kind != -1);
    return 0;
}
