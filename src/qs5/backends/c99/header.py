"""The emitted header: what the model is, its sizes, its state, and what may be called."""

from collections.abc import Iterator

from qs5.backends.c99.plan import Plan
from qs5.backends.c99.text import Names, comment, string
from qs5.integer import ops as o
from qs5.integer.model import SPEC_VERSION, IntegerModel

RAW = {"uint8": "uint8_t", "int16": "int16_t", "token": "int32_t"}


def raw_type(model: IntegerModel) -> str:
    """The C type of a raw sample. Codes may saturate, so their type is wider than they are wherever it can be."""
    q = model.input
    return RAW.get(q.source) or ("int32_t" if q.out.high > 2**15 - 1 else "int16_t")


def answer_type(model: IntegerModel) -> str:
    """The C type of logits and regression outputs."""
    return "int32_t" if model.output.high > 2**15 - 1 else "int16_t"


def states_of(model: IntegerModel) -> list[o.Recurrence]:
    """The recurrences, whose outputs are the state."""
    return [op for op in model.step_ops if isinstance(op, o.Recurrence)]


def header(plan: Plan, *, name: str, prefix: str, digest: str, names: Names) -> str:
    """The text of <name>.h."""
    P, guard = prefix.upper(), f"{prefix.upper()}_{name.upper()}_H"
    parts = [
        _about(plan.model, name, digest),
        f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n",
        _cplusplus(P),
        _sizes(plan, P, digest),
        _tables(plan.model, prefix),
        _state(plan, prefix, names),
        _run(plan, prefix) if plan.model.bidirectional else _stream(plan, prefix),
        "#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
    ]
    return "\n".join(parts)


def texts(model: IntegerModel) -> dict[str, list[str]]:
    """Tables of text, by name: for a program that shows what it computes."""
    d = model.description
    tables = {
        "classes": list(d.classes or ()),
        "units": list(d.units or ()),
        "channels": list(d.channels or ()),
        "provenance": [f"{key}: {value}" for key, value in d.provenance.items()],
    }
    return {key: lines for key, lines in tables.items() if lines}


def text_definitions(model: IntegerModel, prefix: str) -> str:
    """The tables of text, for the .c file."""
    return "\n".join(
        f"const char *const {prefix}_{key}[{len(lines)}] = {{\n"
        + "".join(f"    {string(s)},\n" for s in lines)
        + "};\n"
        for key, lines in texts(model).items()
    )


def _about(model: IntegerModel, name: str, digest: str) -> str:
    d = model.description
    facts = {
        "task": d.task or model.task,
        "spec": d.spec,
        "widths": d.widths,
        "input": _input_text(model),
        "classes": ", ".join(d.classes or ()),
        "units": ", ".join(d.units or ()),
        "channels": ", ".join(d.channels or ()),
        **d.provenance,
        "content": f"SHA-256 {digest}, arithmetic of SPEC version {SPEC_VERSION}",
    }
    lines = [f" * {comment(key)}: {comment(value)}" for key, value in facts.items() if value]
    return "\n".join(
        [f"/* {comment(name)}: an integer-only S5 model, written by qs5. Do not edit.", " *", *lines, " */"]
    )


def _input_text(model: IntegerModel) -> str:
    q, d = model.input, model.description
    if q.source == "token":
        return "one token number a step"
    kind = {"uint8": "raw samples, 0 to 255", "int16": "raw samples, -32768 to 32767"}.get(q.source)
    text = f"{q.out.channels} a step, {kind or f'codes, {q.out.low} to {q.out.high}; beyond they saturate'}"
    if q.source == "codes" and d.scale:
        pairs = zip(d.scale, d.offset, strict=False)
        formulas = ", ".join(f"floor(value {s!r} + {b!r} + 0.5)" for s, b in pairs)
        text += f"; the code of a measured value, by channel: {formulas}"
    return text


def _cplusplus(P: str) -> str:
    return f"""#ifdef __cplusplus
extern "C" {{
#define {P}_AT_LEAST(n) n
#else
#define {P}_AT_LEAST(n) static n /* an array of n elements and more */
#endif
"""


def _sizes(plan: Plan, P: str, digest: str) -> str:
    m = plan.model
    answers = "CLASSES" if m.task == "classification" else "OUTPUTS"
    return f"""#define {P}_HASH "{digest}"
#define {P}_SPEC_VERSION {SPEC_VERSION}
#define {P}_CHANNELS {m.input.out.channels}
#define {P}_{answers} {m.output.channels}
#define {P}_MAX_STEPS {m.max_length} /* {_limit(m)} */
"""


def _limit(model: IntegerModel) -> str:
    pooled = "of one sequence: for these, sums are proved not to overflow"
    return (
        pooled
        if model.final_ops
        else "that the model was lowered for; no sum depends on them, so there may be more"
    )


def _tables(model: IntegerModel, prefix: str) -> str:
    return "".join(
        f"extern const char *const {prefix}_{key}[{len(lines)}];\n" for key, lines in texts(model).items()
    )


def _state(plan: Plan, prefix: str, names: Names) -> str:
    lines = [f"{kind} {name}{f'[{n}]' if n else ''};" for kind, name, n in members(plan, names)]
    return "\n".join(
        [
            "/* Everything that changes. The caller owns it; its members are for the functions below alone. */",
            "typedef struct {",
            *(f"    {line}" for line in lines),
            f"}} {prefix}_state;",
            "",
        ]
    )


def members(plan: Plan, names: Names) -> Iterator[tuple[str, str, int]]:
    """Type, name and extent (0: no array) of the state's members. Widest first, and arrays of codes are whole groups
    long, so each begins at a whole word."""
    m = plan.model
    pool = m.final_ops[0] if m.final_ops else None
    if isinstance(pool, o.MeanPool):
        yield f"int{64 if plan.long_sum else 32}_t", "sum", pool.out.channels
    yield "uint32_t", "steps", 0
    for op in states_of(m):
        yield plan.code, names(op.out.name), plan.padded(op.out.channels)
    if isinstance(pool, o.LastPool):
        yield plan.code, "last", plan.padded(pool.out.channels)
    yield plan.code, "work", max(plan.work, plan.pad)


def _stream(plan: Plan, prefix: str) -> str:
    P, m = prefix.upper(), plan.model
    state, raw = f"{prefix}_state *state", f"const {raw_type(m)} raw[{P}_AT_LEAST({m.input.out.channels})]"
    text = f"""/* Once, before anything else. */
void {prefix}_init({state});

/* Before every further sequence. */
void {prefix}_reset({state});

"""
    if m.task == "regression":
        outputs = f"{answer_type(m)} outputs[{P}_AT_LEAST({m.output.channels})]"
        head = "/* One step: its samples in, its outputs out. */\n"
        return f"{text}{head}void {prefix}_step({state}, {raw}, {outputs});\n"
    logits = f"{answer_type(m)} logits[{P}_AT_LEAST({m.output.channels})]"
    return f"""{text}{_step_comment(m, P, prefix)}
void {prefix}_step({state}, {raw});

/* The answer to the steps so far: the index of the largest logit, the first one of equals, or -1 before the first
 * step. The sequence may go on. */
int {prefix}_finish({state}, {logits});
"""


def _step_comment(model: IntegerModel, P: str, prefix: str) -> str:
    """What a step does, also one that is too many."""
    if isinstance(model.final_ops[0], o.LastPool):
        return "/* One step of the sequence. */"
    return f"""/* One step of the sequence. Beyond {P}_MAX_STEPS of them it changes the state but is not counted:
 * {prefix}_finish then answers for the first {P}_MAX_STEPS. */"""


def _run(plan: Plan, prefix: str) -> str:
    P, m = prefix.upper(), plan.model
    head = f"{prefix}_state *state, const {raw_type(m)} raw[], uint32_t length"
    scratch = f"{prefix}_row scratch[]"
    text = f"""/* What the passes over a sequence hand to each other, for one step. */
typedef struct {{
    uint8_t bytes[{max(plan.row, 1)}];
}} {prefix}_row;

/* Longest sequence that a program makes room for, as in `static {prefix}_row scratch[{P}_MAX_LENGTH];` */
#ifndef {P}_MAX_LENGTH
#define {P}_MAX_LENGTH 1024
#endif

/* Once, before anything else. */
void {prefix}_init({prefix}_state *state);

"""
    if m.task == "regression":
        outputs = f"{answer_type(m)} outputs[][{m.output.channels}]"
        return f"""{text}/* A whole sequence: raw has {P}_CHANNELS samples of each of `length` steps, step by step;
 * scratch and outputs have `length` rows. */
void {prefix}_run({head}, {scratch}, {outputs});
"""
    logits = f"{answer_type(m)} logits[{P}_AT_LEAST({m.output.channels})]"
    return f"""{text}/* A whole sequence: raw has {P}_CHANNELS samples of each of `length` steps, step by step;
 * scratch has `length` rows. Returns the index of the largest logit, the first one of equals; -1, with logits of 0,
 * without a step or with more than {P}_MAX_STEPS. */
int {prefix}_run({head}, {scratch}, {logits});
"""
