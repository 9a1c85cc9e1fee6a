"""The emitted .c file: kernels, constants, and functions that call the kernels in the order of the ops."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qs5.backends.c99.calls import Writer
from qs5.backends.c99.constants import Constants
from qs5.backends.c99.header import answer_type, raw_type, states_of, text_definitions
from qs5.backends.c99.plan import Pass, Plan, direct_token, stored_bytes
from qs5.backends.c99.text import Names
from qs5.integer import ops as o

KERNELS = Path(__file__).resolve().parent / "runtime" / "qs5_kernels.h"
"""The ops in C, free of anything generated."""

_LINE = 116


def source(plan: Plan, *, name: str, prefix: str, names: Names) -> str:
    """The text of <name>.c."""
    constants = Constants()
    writer = Writer(plan.model, names, constants)
    emit = _Emitter(plan, prefix, writer)
    functions = "\n".join(emit.functions())  # first: it collects the constants
    wide = "#define QS5_WIDE_CODES\n" if plan.wide else ""
    return "\n".join(
        [
            f"/* Written by qs5; what the model is, see {name}.h. Do not edit. */",
            f'#include "{name}.h"\n',
            wide + KERNELS.read_text(),
            _title("constants"),
            "\n\n".join(constants.definitions) + "\n",
            text_definitions(plan.model, prefix),
            _title("the model"),
            functions,
        ]
    )


def _title(text: str) -> str:
    return f"/* {('-- ' + text + ' ').ljust(112, '-')} */\n"


def _statement(text: str, indent: int = 4) -> str:
    """A statement, broken into lines."""
    margin = " " * indent
    return textwrap.fill(
        text, _LINE, initial_indent=margin, subsequent_indent=margin + "    ", break_long_words=False
    )


class _Emitter:
    """The functions of one model."""

    def __init__(self, plan: Plan, prefix: str, writer: Writer) -> None:
        self.plan, self.prefix, self.writer = plan, prefix, writer
        self.model = plan.model

    def functions(self) -> Iterator[str]:
        yield self._reset()
        yield self._init()
        for n, p in enumerate(self.plan.passes):
            if self.model.bidirectional:
                yield self._pass(n, p)
            else:
                yield self._step(p)
        if self.model.final_ops:
            yield self._finish()
        if self.model.bidirectional:
            yield self._run()

    # -- beginnings ---------------------------------------------------------------------------------------

    def _reset(self) -> str:
        static = "static " if self.model.bidirectional else ""
        pool = self.model.final_ops[0] if self.model.final_ops else None
        lines = ["    state->steps = 0;"]
        for op in states_of(self.model):
            lines.append(
                f"    qs5k_zero(state->{self._id(op.out.name)}, {self.plan.padded(op.out.channels)});"
            )
        if isinstance(pool, o.MeanPool):
            lines += [
                f"    for (uint32_t i = 0; i < {pool.out.channels}u; i++) {{",
                "        state->sum[i] = 0;",
                "    }",
            ]
        return self._function(f"{static}void {self.prefix}_reset({self.prefix}_state *state)", lines)

    def _init(self) -> str:
        pool = self.model.final_ops[0] if self.model.final_ops else None
        lines = [f"    qs5k_zero(state->work, {max(self.plan.work, self.plan.pad)});"]
        if isinstance(pool, o.LastPool):
            lines.append(f"    qs5k_zero(state->last, {pool.out.channels});")
        lines.append(f"    {self.prefix}_reset(state);")
        return self._function(f"void {self.prefix}_init({self.prefix}_state *state)", lines)

    # -- a step -------------------------------------------------------------------------------------------

    def _step(self, p: Pass) -> str:
        arguments = [
            f"{self.prefix}_state *state",
            f"const {raw_type(self.model)} raw[{self._static(self._d)}]",
        ]
        lines = self._body(p)
        if self.model.task == "regression":
            arguments.append(f"{answer_type(self.model)} outputs[{self._static(self._n)}]")
            lines += self._copy_out("outputs", self._id(self.model.output.name))
        else:
            lines += self._collect("")
        return self._function(f"void {self.prefix}_step({', '.join(arguments)})", lines)

    def _pass(self, n: int, p: Pass) -> str:
        arguments = [f"{self.prefix}_state *state"]
        if self._reads_raw(p):
            arguments.append(f"const {raw_type(self.model)} raw[{self._static(self._d)}]")
        arguments.append(f"{self.prefix}_row *row")
        lines = self._body(p)
        if not p.loads and not p.stores:
            lines.append("    (void)row;")
        return self._function(f"static void {self.prefix}_pass_{n}({', '.join(arguments)})", lines)

    def _reads_raw(self, p: Pass) -> bool:
        return p.quantizes or any(direct_token(self.model) in o.inputs_of(op) for op in p.ops)

    def _body(self, p: Pass) -> list[str]:
        calls = [_statement(self.writer.call(op)) for op in p.ops]
        taken = self.model.final_ops[0] if self.model.final_ops else None
        used = {name for op in p.ops for name in (op.out.name, *o.inputs_of(op))} | set(p.stores)
        used |= set(o.inputs_of(taken)) if taken and not self.model.bidirectional else set()
        used |= {self.model.input.out.name} if p.quantizes else set()
        lines = self._locals(p.ops, p.buffers, used)
        lines += self._quantize() if p.quantizes else []
        lines += [self._load(name, at) for name, at in p.loads.items() if name in p.buffers]
        lines += calls
        return lines + [self._store(name, at) for name, at in p.stores.items()]

    def _locals(self, ops: tuple[o.Op, ...], buffers: dict[str, int], used: set[str]) -> list[str]:
        states = {op.out.name for op in ops if isinstance(op, o.Recurrence)}
        lines = [
            f"    qs5_code *const {self._id(name)} = state->{self._id(name)};"
            for name in self._order(states & used)
        ]
        if any(name in used for name in buffers):
            lines.append("    qs5_code *const work = state->work;")
        for name in self._order(set(buffers) & used):
            lines.append(f"    qs5_code *const {self._id(name)} = work + {buffers[name]};")
        return [*lines, ""]

    def _order(self, chosen: set[str]) -> list[str]:
        return [name for name in self.model.signals if name in chosen]

    def _quantize(self) -> list[str]:
        q, x = self.model.input, self._id(self.model.input.out.name)
        loop = f"    for (uint32_t i = 0; i < {self._d}u; i++) {{"
        if q.source in ("codes", "token"):
            return [
                loop,
                f"        {x}[i] = (qs5_code)qs5k_clip(raw[i], {q.out.low}, {q.out.high});",
                "    }",
            ]
        M = self.writer.constants.add(self.writer.names(q.out.name, "M"), np.asarray(q.M, np.int32))
        offset = self.writer.constants.add(
            self.writer.names(q.out.name, "offset"), np.asarray(q.offset, np.int64)
        )
        call = f"qs5k_input(raw[i], {M}[i], {offset}[i], {q.shift}, {q.out.low}, {q.out.high})"
        return [loop, f"        {x}[i] = {call};", "    }"]

    def _load(self, name: str, at: int) -> str:
        s = self.model.signals[name]
        width = 8 * stored_bytes(s) // s.channels
        return f"    qs5k_load{width}({self._id(name)}, {s.channels}, row->bytes + {at}, {s.high});"

    def _store(self, name: str, at: int) -> str:
        s = self.model.signals[name]
        width = 8 * stored_bytes(s) // s.channels
        return f"    qs5k_save{width}(row->bytes + {at}, {s.channels}, {self._id(name)});"

    # -- the answer ---------------------------------------------------------------------------------------

    def _collect(self, where: str) -> list[str]:
        """Statements that hand a step to the pool. where: "" for the local name, else an expression."""
        pool = self.model.final_ops[0]
        x = where or self._id(o.inputs_of(pool)[0])
        n = pool.out.channels
        if isinstance(pool, o.LastPool):
            return [f"    qs5k_copy(state->last, {n}, {x});", "    state->steps = 1;"]
        width = 64 if self.plan.long_sum else 32
        count = ["    state->steps++;", f"    qs5k_sum{width}(state->sum, {n}, {x});"]
        if self.model.bidirectional:  # the whole sequence is known, and was refused if it is too long
            return count
        return [
            f"    if (state->steps < {self.prefix.upper()}_MAX_STEPS) {{ /* later ones could overflow the sum */",
            *(f"    {line}" for line in count),
            "    }",
        ]

    def _finish(self) -> str:
        pool, *rest = self.model.final_ops
        static = "static " if self.model.bidirectional else ""
        logits = f"{answer_type(self.model)} logits[{self._static(self._n)}]"
        calls = [_statement(self.writer.call(op)) for op in rest]
        used = {name for op in rest for name in (op.out.name, *o.inputs_of(op))} | {pool.out.name}
        width = 64 if self.plan.long_sum else 32
        answer = self._id(self.model.output.name)
        x, n = self._id(pool.out.name), pool.out.channels
        pooled = f"    qs5k_mean{width}({x}, {n}, state->sum, state->steps);"
        lines = [
            *self._locals((), self.plan.final, used)[:-1],
            "    if (state->steps == 0u) {",
            f"        for (uint32_t i = 0; i < {self._n}u; i++) {{",
            "            logits[i] = 0;",
            "        }",
            "        return -1;",
            "    }",
            pooled if isinstance(pool, o.MeanPool) else f"    qs5k_copy({x}, {n}, state->last);",
            *calls,
            *self._copy_out("logits", answer),
            f"    return qs5k_argmax({answer}, {self._n});",
        ]
        return self._function(
            f"{static}int {self.prefix}_finish({self.prefix}_state *state, {logits})", lines
        )

    def _copy_out(self, target: str, x: str) -> list[str]:
        kind = answer_type(self.model)
        value = f"{x}[i]" if kind == self.plan.code else f"({kind}){x}[i]"
        return [
            f"    for (uint32_t i = 0; i < {self._n}u; i++) {{",
            f"        {target}[i] = {value};",
            "    }",
        ]

    # -- a whole sequence ---------------------------------------------------------------------------------

    def _run(self) -> str:
        kind, regression = answer_type(self.model), self.model.task == "regression"
        answer = f"{kind} outputs[][{self._n}]" if regression else f"{kind} logits[{self._static(self._n)}]"
        arguments = [
            f"{self.prefix}_state *state",
            f"const {raw_type(self.model)} raw[]",
            "uint32_t length",
            f"{self.prefix}_row scratch[]",
            answer,
        ]
        lines = [f"    {self.prefix}_reset(state);"]
        if not regression:
            limit = f"{self.prefix.upper()}_MAX_STEPS"
            lines.append(f"    length = length > {limit} ? 0u : length; /* too many: no answer */")
        for n, p in enumerate(self.plan.passes):
            lines += self._loop(n, p)
        if not regression:
            lines.append(f"    return {self.prefix}_finish(state, logits);")
        head = f"{'void' if regression else 'int'} {self.prefix}_run({', '.join(arguments)})"
        return self._function(head, lines)

    def _loop(self, n: int, p: Pass) -> list[str]:
        k = "length - 1u - i" if p.backward else "i"
        raw = f"raw + k * {self._d}u, " if self._reads_raw(p) else ""
        inside = [f"    {self.prefix}_pass_{n}(state, {raw}&scratch[k]);", *self._after(p)]
        return [
            f"    for (uint32_t i = 0; i < length; i++) {{{' /* from the end */' if p.backward else ''}",
            f"        const uint32_t k = {k};",
            *(f"    {line}" for line in inside),
            "    }",
        ]

    def _after(self, p: Pass) -> list[str]:
        """What the pool or the caller takes, in the pass that makes it."""
        regression = self.model.task == "regression"
        name = self.model.output.name if regression else o.inputs_of(self.model.final_ops[0])[0]
        made = {op.out.name: op for op in p.ops}
        if name not in made and not (name in p.buffers and p.quantizes):
            return []
        where = f"state->work + {p.buffers[name]}" if name in p.buffers else f"state->{self._id(name)}"
        if regression:
            kind = answer_type(self.model)
            return [
                f"    for (uint32_t c = 0; c < {self._n}u; c++) {{",
                f"        outputs[k][c] = ({kind})({where})[c];",
                "    }",
            ]
        collect = self._collect(where)
        if isinstance(self.model.final_ops[0], o.LastPool):
            return ["    if (k + 1u == length) {", *(f"    {line}" for line in collect), "    }"]
        return collect

    # -- names --------------------------------------------------------------------------------------------

    def _id(self, name: str) -> str:
        return self.writer.names(name)

    def _static(self, n: int) -> str:
        return f"{self.prefix.upper()}_AT_LEAST({n})"

    @property
    def _d(self) -> int:
        return self.model.input.out.channels

    @property
    def _n(self) -> int:
        return self.model.output.channels

    def _function(self, head: str, lines: list[str]) -> str:
        return "\n".join([_statement(head, 0), "{", *lines, "}", ""])
