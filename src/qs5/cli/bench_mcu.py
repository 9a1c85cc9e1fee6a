"""What an exported model costs on emulated microcontrollers, and that it answers as the reference does there.

    rows = cost_table(model, images, folder=Path("build"))
    print(table_text(rows))

Flash, static RAM, stack, and instructions per step and per multiply-accumulate. QEMU counts instructions; it knows
nothing of cycles or time, so no figure here is one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qs5.backends.c99 import Export, export
from qs5.backends.mcu import CORES, Core, c_array, run_on
from qs5.backends.mcu.build import Optimize
from qs5.cli.golden import golden_of
from qs5.errors import UserError
from qs5.integer.cost import step_macs
from qs5.integer.model import IntegerModel

MEASURED_STEPS = 128
"""Of the first sequence: 32-bit counters of the boards last for 10^9 instructions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CoreCost:
    """One core. flash_bytes: code and constants of the model with what it takes from libgcc, without the program around
    it. ram_bytes: the state, and for a bidirectional model the stored sequence. stack_bytes: deepest of all calls.
    step_instructions: mean over the measured steps. finish_instructions: the answer. answers: of every sequence."""

    core: Core
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    step_instructions: float
    finish_instructions: int
    step_macs: int
    answers: list[np.ndarray]

    @property
    def instructions_per_mac(self) -> float:
        """Of a whole step, everything included."""
        return self.step_instructions / self.step_macs


def cost_table(
    model: IntegerModel, images: Sequence[np.ndarray], *, folder: Path, cores: Iterable[str] = CORES
) -> list[CoreCost]:
    """Runs the sequences (L, D) of raw samples on each core. Raises UserError where an answer is not the reference's,
    or where a tool is missing."""
    golden = golden_of(model, images)
    files = export(model, folder / "model", golden=golden)
    rows = []
    for name in cores:
        row = run_on_core(CORES[name], model, files, images, folder=folder / name)
        for i, (got, expected) in enumerate(zip(row.answers, golden.answers, strict=True)):
            if not np.array_equal(got, np.asarray(expected)):
                raise UserError(
                    f"{row.core.title}: sequence {i} has other logits than the reference; report this"
                )
        rows.append(row)
    return rows


def table_text(rows: Sequence[CoreCost]) -> str:
    """The table as text."""
    head = f"{'core':<12} {'flash':>8} {'RAM':>7} {'stack':>6} {'instructions a step':>20} {'per MAC':>8}"
    lines = [
        f"{r.core.title:<12} {r.flash_bytes:>8,} {r.ram_bytes:>7,} {r.stack_bytes:>6,} {r.step_instructions:>20,.0f} "
        f"{r.instructions_per_mac:>8.2f}"
        for r in rows
    ]
    note = f"bytes; instructions as QEMU counts them, not cycles; {rows[0].step_macs:,} multiply-accumulates a step"
    return "\n".join([head, *lines, note])


def run_on_core(
    core: Core,
    model: IntegerModel,
    files: Export,
    sequences: Sequence[np.ndarray],
    *,
    folder: Path,
    defines: dict[str, str | int] | None = None,
    optimize: Optimize = "-O2",
    timeout_s: float = 900.0,
) -> CoreCost:
    """Builds, runs and measures an exported model (of prefix qs5). defines: QS5_PLAIN switches SMLAD and MVE off."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "program.c"
    program.write_text(_program(model, files, sequences))
    report = run_on(
        core,
        [program, files.source],
        folder=folder,
        include=[files.folder],
        defines=defines,
        optimize=optimize,
        timeout_s=timeout_s,
    )
    model_parts = [v for k, v in report.parts.items() if k == str(files.source) or k.startswith("libgcc")]
    steps, costs = report.costs("steps")[0], report.costs("finish")
    measured = len(sequences[0]) if model.bidirectional else min(len(sequences[0]), MEASURED_STEPS)
    return CoreCost(
        core=core,
        flash_bytes=sum(part.flash_bytes for part in model_parts),
        ram_bytes=int(report.rows("ram")[0, 0]) + sum(part.static_ram_bytes for part in model_parts),
        stack_bytes=max(c.stack_bytes for c in (steps, *costs)),
        step_instructions=steps.instructions / measured,
        finish_instructions=costs[0].instructions if costs else 0,
        step_macs=step_macs(model),
        answers=_answers(model, report.rows("answer"), sequences),
    )


def _answers(model: IntegerModel, rows: np.ndarray, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    if model.task == "classification":
        return list(rows)
    ends = np.cumsum([len(s) for s in sequences])[:-1]
    return np.split(rows, ends)


# -- the program around the model --------------------------------------------------------------------------------


def _program(model: IntegerModel, files: Export, sequences: Sequence[np.ndarray]) -> str:
    raw = np.concatenate(list(sequences)).astype(np.int64)
    dtype = {"uint8": np.uint8, "int16": np.int16}.get(model.input.source, np.int32)
    lengths = np.array([len(s) for s in sequences], np.int32)
    longest = int(lengths.max())
    parts = [
        f'#include "mcu.h"\n#include "{files.header.name}"\n',
        c_array("raw", raw.astype(dtype)),
        c_array("lengths", lengths),
        f"#define N {model.output.channels}\n#define LONGEST {longest}\n#define MEASURED {MEASURED_STEPS}\n",
        _COMMON + (_FILL if model.bidirectional else _SAMPLE),
        (_RUN_REGRESSION if model.bidirectional else _STREAM_REGRESSION)
        if model.task == "regression"
        else (_RUN_CLASSES if model.bidirectional else _STREAM_CLASSES),
    ]
    sample = {"uint8": "uint8_t", "int16": "int16_t"}.get(model.input.source)
    kind = sample or (
        "int32_t" if model.input.source == "token" or model.input.out.high > 32767 else "int16_t"
    )
    answer = "int32_t" if model.output.high > 32767 else "int16_t"
    return "\n".join(parts).replace("RAW_T", kind).replace("ANSWER_T", answer)


_COMMON = """
static qs5_state state;
typedef struct { int32_t from, to; } range;

static void show(const ANSWER_T *answer)
{
    int32_t values[N];
    for (int i = 0; i < N; i++) {
        values[i] = answer[i];
    }
    mcu_row("answer", values, N);
}
"""

_SAMPLE = """
static const RAW_T *sample_of(int32_t k)
{
    static RAW_T sample[QS5_CHANNELS];
    for (int i = 0; i < QS5_CHANNELS; i++) {
        sample[i] = (RAW_T)raw[k][i];
    }
    return sample;
}
"""

_STREAM_CLASSES = """
static ANSWER_T logits[N];

static void steps(void *argument)
{
    const range *r = argument;
    for (int32_t k = r->from; k < r->to; k++) {
        qs5_step(&state, sample_of(k));
    }
}

static void finish(void *argument)
{
    (void)argument;
    (void)qs5_finish(&state, logits);
}

int main(void)
{
    const int32_t ram = (int32_t)sizeof state;
    int32_t at = 0;
    mcu_row("ram", &ram, 1);
    qs5_init(&state);
    for (uint32_t s = 0; s < sizeof lengths / sizeof lengths[0]; s++) {
        range first = {at, at + (lengths[s] < MEASURED ? lengths[s] : MEASURED)};
        range rest = {first.to, at + lengths[s]};
        qs5_reset(&state);
        if (s == 0) {
            mcu_cost_row("steps", mcu_measure(steps, &first));
        } else {
            steps(&first);
        }
        steps(&rest);
        if (s == 0) {
            mcu_cost_row("finish", mcu_measure(finish, 0));
        } else {
            finish(0);
        }
        show(logits);
        at += lengths[s];
    }
    return 0;
}
"""

_STREAM_REGRESSION = """
static void steps(void *argument)
{
    const range *r = argument;
    ANSWER_T outputs[N];
    for (int32_t k = r->from; k < r->to; k++) {
        qs5_step(&state, sample_of(k), outputs);
    }
}

int main(void)
{
    const int32_t ram = (int32_t)sizeof state;
    int32_t at = 0;
    mcu_row("ram", &ram, 1);
    qs5_init(&state);
    range first = {0, lengths[0] < MEASURED ? lengths[0] : MEASURED};
    mcu_cost_row("steps", mcu_measure(steps, &first));
    for (uint32_t s = 0; s < sizeof lengths / sizeof lengths[0]; s++) {
        const int32_t end = at + lengths[s];
        qs5_reset(&state);
        for (; at < end; at++) {
            ANSWER_T outputs[N];
            qs5_step(&state, sample_of(at), outputs);
            show(outputs);
        }
    }
    return 0;
}
"""

_FILL = """
static qs5_row scratch[LONGEST];
static RAW_T samples[LONGEST * QS5_CHANNELS];

static void fill(const range *r)
{
    for (int32_t k = r->from; k < r->to; k++) {
        for (int i = 0; i < QS5_CHANNELS; i++) {
            samples[(k - r->from) * QS5_CHANNELS + i] = (RAW_T)raw[k][i];
        }
    }
}
"""

_RUN_MAIN = """
int main(void)
{
    const int32_t ram = (int32_t)(sizeof state + sizeof scratch);
    int32_t at = 0;
    mcu_row("ram", &ram, 1);
    qs5_init(&state);
    for (uint32_t s = 0; s < sizeof lengths / sizeof lengths[0]; s++) {
        range all = {at, at + lengths[s]};
        fill(&all);
        if (s == 0) {
            mcu_cost_row("steps", mcu_measure(whole, &all));
        } else {
            whole(&all);
        }
        SHOW
        at += lengths[s];
    }
    return 0;
}
"""

_RUN_CLASSES = """
static ANSWER_T logits[N];

static void whole(void *argument)
{
    const range *r = argument;
    (void)qs5_run(&state, samples, (uint32_t)(r->to - r->from), scratch, logits);
}
""" + _RUN_MAIN.replace("SHOW", "show(logits);")

_RUN_REGRESSION = """
static ANSWER_T outputs[LONGEST][N];

static void whole(void *argument)
{
    const range *r = argument;
    qs5_run(&state, samples, (uint32_t)(r->to - r->from), scratch, outputs);
}
""" + _RUN_MAIN.replace(
    "SHOW", "for (int32_t k = 0; k < lengths[s]; k++) {\n            show(outputs[k]);\n        }"
)
