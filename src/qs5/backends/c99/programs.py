"""The programs beside a model: main.c (stdin to stdout), selftest.c (golden vectors), and the Makefile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qs5.backends.c99.constants import C_TYPES, definition
from qs5.backends.c99.header import answer_type, raw_type
from qs5.integer.model import IntegerModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """What a model must answer, from the reference. sequences: raw (L, D) each, L at least 1. answers: the logits
    (classes,) of each, or its outputs (L, outputs)."""

    sequences: Sequence[np.ndarray]
    answers: Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Program:
    """What the texts below need."""

    model: IntegerModel
    name: str
    prefix: str

    @property
    def P(self) -> str:
        """The prefix of macros."""
        return self.prefix.upper()

    @property
    def raw(self) -> str:
        """The type of raw samples."""
        return raw_type(self.model)

    @property
    def answer(self) -> str:
        """The type of logits or outputs."""
        return answer_type(self.model)

    @property
    def regression(self) -> bool:
        """Whether every step has an answer."""
        return self.model.task == "regression"


def makefile(name: str) -> str:
    """`make` builds ./<name>, `make test` runs the self-test."""
    return f"""CC ?= cc
CFLAGS ?= -O2
CFLAGS += -std=c99 -pedantic -Wall -Wextra -Wconversion

all: {name} selftest

{name}: main.c {name}.c {name}.h
\t$(CC) $(CFLAGS) -o $@ main.c {name}.c

selftest: selftest.c {name}.c {name}.h
\t$(CC) $(CFLAGS) -o $@ selftest.c {name}.c

test: selftest
\t./selftest

clean:
\trm -f {name} selftest

.PHONY: all test clean
"""


# -- main.c ----------------------------------------------------------------------------------------------------


def main_c(p: Program) -> str:
    """The text of main.c."""
    count = p.model.input.out.channels
    answer = (
        "one line a step: the outputs" if p.regression else "one line a sequence: the class and the logits"
    )
    parts = [
        f"""/* Reads raw samples from stdin: {count} a line make a step, an empty line ends a sequence.
 * Prints {answer}. Lines that begin with # are comments. */
#include <stdio.h>
#include <stdlib.h>

#include "{p.name}.h"
""",
        _reader(p),
        _printer(p),
        _run_main(p) if p.model.bidirectional else _stream_main(p),
    ]
    return "\n".join(parts)


def _reader(p: Program) -> str:
    low, high = _range(p)
    saturates = p.model.input.source in ("codes", "token")
    beyond = (
        "value = value < LOW ? LOW : HIGH; /* as the model itself does it */"
        if saturates
        else 'fail("a sample is out of range");'
    )
    return f"""#define LOW ({low})
#define HIGH {high}

static unsigned long line_number = 1;

static void fail(const char *why)
{{
    fprintf(stderr, "line %lu: %s\\n", line_number, why);
    exit(2);
}}

/* The next number of a line. 0 at the end of the line, -1 at the end of the input, 1 for a number. */
static int next_value(long *value)
{{
    char digits[24];
    size_t used = 0;
    char *end;
    int c = getchar();
    while (c == ' ' || c == '\\t' || c == '\\r' || c == ',') {{
        c = getchar();
    }}
    while (c == '#') {{
        while (c != '\\n' && c != EOF) {{
            c = getchar();
        }}
        line_number++;
        c = getchar();
    }}
    if (c == EOF || c == '\\n') {{
        return c == EOF ? -1 : 0;
    }}
    while (c != EOF && c != ' ' && c != '\\t' && c != '\\r' && c != '\\n' && c != ',') {{
        if (used + 1 == sizeof digits) {{
            fail("expected an integer");
        }}
        digits[used++] = (char)c;
        c = getchar();
    }}
    if (c != EOF) {{
        (void)ungetc(c, stdin);
    }}
    digits[used] = '\\0';
    *value = strtol(digits, &end, 10);
    if (*end != '\\0') {{
        fail("expected an integer");
    }}
    return 1;
}}

/* One line. 1 for a step, 0 for an empty line, -1 at the end of the input. */
static int read_step({p.raw} raw[{p.P}_AT_LEAST({p.P}_CHANNELS)])
{{
    unsigned count = 0;
    int kind;
    long value;
    while ((kind = next_value(&value)) == 1) {{
        if (value < LOW || value > HIGH) {{
            {beyond}
        }}
        if (count == {p.P}_CHANNELS) {{
            fail("too many samples");
        }}
        raw[count++] = ({p.raw})value;
    }}
    if (count != 0 && count != {p.P}_CHANNELS) {{
        fail("too few samples");
    }}
    if (kind == 0) {{
        line_number++;
    }}
    return count != 0 ? 1 : kind;
}}
"""


def _range(p: Program) -> tuple[str, str]:
    """The smallest and largest number of the raw type, as C."""
    if p.raw == "int32_t":
        return "-2147483647L - 1L", "2147483647L"
    return {"uint8_t": ("0", "255"), "int16_t": ("-32768", "32767")}[p.raw]


def _printer(p: Program) -> str:
    if p.regression:
        return f"""static void print_outputs(const {p.answer} outputs[{p.P}_AT_LEAST({p.P}_OUTPUTS)])
{{
    for (unsigned i = 0; i < {p.P}_OUTPUTS; i++) {{
        printf(i == 0 ? "%ld" : " %ld", (long)outputs[i]);
    }}
    printf("\\n");
}}
"""
    # As `qs5 run` prints it, so that the two can be compared as they are.
    label = (
        f'printf("%s", {p.prefix}_classes[label]);' if p.model.description.classes else 'printf("%d", label);'
    )
    return f"""static void print_answer(int label, const {p.answer} logits[{p.P}_AT_LEAST({p.P}_CLASSES)])
{{
    {label}
    for (unsigned i = 0; i < {p.P}_CLASSES; i++) {{
        printf(i == 0 ? "\\t%ld" : " %ld", (long)logits[i]);
    }}
    printf("\\n");
}}
"""


def _stream_main(p: Program) -> str:
    x = p.prefix
    if p.regression:
        step, locals_ = f"{x}_step(&state, raw, outputs);\n            print_outputs(outputs);", "outputs"
        end = ""
    else:
        step, locals_ = f"{x}_step(&state, raw);", "logits"
        end = f"            print_answer({x}_finish(&state, logits), logits);\n"
    count = "OUTPUTS" if p.regression else "CLASSES"
    return f"""int main(void)
{{
    static {x}_state state;
    {p.raw} raw[{p.P}_CHANNELS];
    {p.answer} {locals_}[{p.P}_{count}];
    unsigned long steps = 0;
    int kind;
    {x}_init(&state);
    do {{
        kind = read_step(raw);
        if (kind == 1) {{
            {step}
            steps++;
        }} else if (steps != 0) {{
{end}            {x}_reset(&state);
            steps = 0;
        }}
    }} while (kind != -1);
    return 0;
}}
"""


def _run_main(p: Program) -> str:
    x = p.prefix
    if p.regression:
        memory = f"    static {p.answer} outputs[{p.P}_MAX_LENGTH][{p.P}_OUTPUTS];"
        run = f"""{x}_run(&state, raw[0], steps, scratch, outputs);
            for (uint32_t k = 0; k < steps; k++) {{
                print_outputs(outputs[k]);
            }}"""
    else:
        memory = f"    {p.answer} logits[{p.P}_CLASSES];"
        run = f"print_answer({x}_run(&state, raw[0], steps, scratch, logits), logits);"
    return f"""int main(void)
{{
    static {x}_state state;
    static {x}_row scratch[{p.P}_MAX_LENGTH];
    static {p.raw} raw[{p.P}_MAX_LENGTH + 1][{p.P}_CHANNELS]; /* one more, to see that there is too much */
{memory}
    uint32_t steps = 0;
    int kind;
    {x}_init(&state);
    do {{
        kind = read_step(raw[steps]);
        if (kind == 1) {{
            steps++;
            if (steps > {p.P}_MAX_LENGTH) {{
                fail("the sequence is too long: compile with a larger {p.P}_MAX_LENGTH");
            }}
        }} else if (steps != 0) {{
            {run}
            steps = 0;
        }}
    }} while (kind != -1);
    return 0;
}}
"""


# -- selftest.c ------------------------------------------------------------------------------------------------


def selftest_c(p: Program, golden: Golden) -> str:
    """The text of selftest.c: returns 0 where every answer is the expected one."""
    return "\n".join(
        [
            f"""/* Golden vectors of {p.name}: every answer must equal the reference's. 1 at a difference. */
#include <stdio.h>

#include "{p.name}.h"
""",
            _vectors(p, golden),
            _compare(p),
            _run_selftest(p, golden) if p.model.bidirectional else _stream_selftest(p, golden),
        ]
    )


def _vectors(p: Program, golden: Golden) -> str:
    kinds = {text: dtype for dtype, text in C_TYPES.items()}
    limits = np.iinfo(kinds[p.raw])
    raw = np.clip(np.concatenate(list(golden.sequences)), limits.min, limits.max).astype(kinds[p.raw])
    answers = np.concatenate([np.atleast_2d(a) for a in golden.answers]).astype(kinds[p.answer])
    lengths = np.array([len(s) for s in golden.sequences], np.uint32)
    return "\n".join(
        [
            definition("lengths", lengths),
            _two_axes("raw", raw),
            _two_axes("expected", answers) + "\n",
        ]
    )


def _two_axes(name: str, values: np.ndarray) -> str:
    rows = "\n".join("    {" + ", ".join(_number(int(v)) for v in row) + "}," for row in values)
    return f"static const {C_TYPES[values.dtype]} {name}[{len(values)}][{values.shape[1]}] = {{\n{rows}\n}};"


def _number(value: int) -> str:
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)


def _compare(p: Program) -> str:
    count = f"{p.P}_{'OUTPUTS' if p.regression else 'CLASSES'}"
    return f"""static int differs(unsigned long at, const {p.answer} *got, const {p.answer} *want)
{{
    for (unsigned i = 0; i < {count}; i++) {{
        if (got[i] != want[i]) {{
            printf("answer %lu, number %u: expected %ld, got %ld\\n", at, i, (long)want[i], (long)got[i]);
            return 1;
        }}
    }}
    return 0;
}}
"""


def _stream_selftest(p: Program, golden: Golden) -> str:
    x = p.prefix
    if p.regression:
        inside = f"""{p.answer} outputs[{p.P}_OUTPUTS];
            {x}_step(&state, raw[k], outputs);
            if (differs(k, outputs, expected[k])) {{
                return 1;
            }}"""
        after = ""
    else:
        inside = f"{x}_step(&state, raw[k]);"
        after = f"""        (void){x}_finish(&state, logits);
        if (differs(s, logits, expected[s])) {{
            return 1;
        }}
"""
    logits = "" if p.regression else f"        {p.answer} logits[{p.P}_CLASSES];\n"
    return f"""int main(void)
{{
    static {x}_state state;
    uint32_t k = 0;
    {x}_init(&state);
    for (unsigned s = 0; s < {len(golden.sequences)}u; s++) {{
{logits}        const uint32_t end = k + lengths[s];
        {x}_reset(&state);
        for (; k < end; k++) {{
            {inside}
        }}
{after}    }}
    printf("ok: {len(golden.sequences)} sequences, every answer as expected\\n");
    return 0;
}}
"""


def _run_selftest(p: Program, golden: Golden) -> str:
    x, longest = p.prefix, max(len(s) for s in golden.sequences)
    if p.regression:
        memory = f"    static {p.answer} outputs[{longest}][{p.P}_OUTPUTS];\n"
        inside = f"""        {x}_run(&state, raw[at], lengths[s], scratch, outputs);
        for (uint32_t k = 0; k < lengths[s]; k++) {{
            if (differs(at + k, outputs[k], expected[at + k])) {{
                return 1;
            }}
        }}"""
    else:
        memory = f"    {p.answer} logits[{p.P}_CLASSES];\n"
        inside = f"""        (void){x}_run(&state, raw[at], lengths[s], scratch, logits);
        if (differs(s, logits, expected[s])) {{
            return 1;
        }}"""
    return f"""int main(void)
{{
    static {x}_state state;
    static {x}_row scratch[{longest}];
{memory}    uint32_t at = 0;
    {x}_init(&state);
    for (unsigned s = 0; s < {len(golden.sequences)}u; s++) {{
{inside}
        at += lengths[s];
    }}
    printf("ok: {len(golden.sequences)} sequences, every answer as expected\\n");
    return 0;
}}
"""
