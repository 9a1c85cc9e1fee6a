"""Random integer models that every backend must agree on, each from one seed. NumPy only: nothing is lowered.

    model = random_integer_model(7)
    sequences = random_sequences(model, seed=7)        list of raw (L, D), lengths 1 and more

Constants are drawn so that accumulators are used well: codes spread over their formats, some saturate. Over the seeds
every kind of op occurs, every source, weights of 1 to 8 bits, signals of 1 to 16 bits, signed and unsigned, both forms
of the recurrence, both directions, both pools, sums of 32 and 64 bits, and every sign of shift.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qs5.integer import ops as o
from qs5.integer.arithmetic import NORM_BITS
from qs5.integer.checks import check
from qs5.integer.model import Description, InputQuantizer, IntegerModel
from qs5.integer.signals import Signal
from qs5.numerics.multiplier import MAX_SHIFT, fixed_point

INT32 = 2**31 - 1
LENGTHS = (1, 2, 3, 19)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What `random_integer_model` draws first; fix some of it by keyword. None: drawn."""

    source: str | None = None
    task: str | None = None
    bidirectional: bool | None = None
    layers: int | None = None
    H: int | None = None
    modes: int | None = None
    weight_bits: int | None = None
    wide_unsigned: bool | None = None
    """Whether a signal of 16 unsigned bits, which fits no int16, occurs."""
    padding: str | None = None
    direct_states: bool = False
    """C reads the states as they are, all their bits, without a shift. Never drawn."""


def random_integer_model(seed: int, **fixed: Any) -> IntegerModel:
    """A model that keeps the rules of `checks`. fixed: fields of `Choices`."""
    builder = _Builder(np.random.default_rng([seed, 5]), Choices(**fixed))
    model = builder.model()
    check(model)
    return model


def random_sequences(
    model: IntegerModel, *, seed: int, lengths: tuple[int, ...] = LENGTHS
) -> list[np.ndarray]:
    """Raw samples (L, D) int64 for each length: noise, extreme values, and for codes some out of range."""
    rng = np.random.default_rng([seed, 6])
    return [_samples(model, rng, L) for L in lengths]


def _samples(model: IntegerModel, rng: np.random.Generator, L: int) -> np.ndarray:
    q, low, high = model.input, *raw_range(model)
    shape = (L, q.out.channels)
    raw = rng.normal((low + high) / 2, (high - low) / 4, shape).round().astype(np.int64)
    raw[rng.random(shape) < 0.1] = high
    raw[rng.random(shape) < 0.1] = low
    if q.source in ("codes", "token"):  # such samples saturate
        raw[rng.random(shape) < 0.02] = high + 5
        raw[rng.random(shape) < 0.02] = low - 5
        return np.clip(raw, low - 5, high + 5)
    return np.clip(raw, low, high)


def raw_range(model: IntegerModel) -> tuple[int, int]:
    """The smallest and the largest raw sample that mean something."""
    q = model.input
    ranges = {"uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "codes": (q.out.low, q.out.high)}
    if q.source != "token":
        return ranges[q.source]
    first = model.ops[0]
    assert isinstance(first, o.Embedding)
    return 0, first.tokens - 1


@dataclass
class _Builder:
    """Writes ops one after the other. `spread` notes, for each signal, about how large its codes are."""

    rng: np.random.Generator
    choices: Choices
    ops: list[o.Op] = field(default_factory=list)
    signals: dict[str, Signal] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)

    # -- drawing ------------------------------------------------------------------------------------------

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def choose(self, name: str, *options: Any) -> Any:
        value, drawn = getattr(self.choices, name), self.pick(*options)
        return drawn if value is None else value

    def signal(self, name: str, channels: int, bits: int, *, signed: bool = True) -> Signal:
        return Signal(name=name, channels=channels, bits=bits, signed=signed, exponent=-int(bits) // 2)

    def activation(self, name: str, channels: int) -> Signal:
        """8 bits most of the time."""
        return self.signal(name, channels, self.pick(8, 8, 8, int(self.rng.integers(1, 9))))

    def wide(self, name: str, channels: int) -> Signal:
        return self.signal(name, channels, self.pick(16, 16, 12))

    def write(self, op: o.Op, spread: float) -> str:
        self.ops.append(op)
        self.signals[op.out.name] = op.out
        self.spread[op.out.name] = min(spread, op.out.high)
        return op.out.name

    def codes(self, bits: int, *shape: int) -> np.ndarray:
        high = max(2 ** (bits - 1) - 1, 1)
        if bits == 1:
            return self.rng.choice([-1, 1], shape).astype(np.int8)
        return np.clip(np.rint(self.rng.normal(0, high / 2 + 0.3, shape)), -high, high).astype(np.int8)

    def multipliers(self, accumulator: float, out: Signal, n: int) -> tuple[np.ndarray, np.ndarray]:
        """M and shift of n rows that bring accumulators of that size to codes of `out`; one in thirty is 0."""
        ratios = out.high / max(accumulator, 1.0) * 2.0 ** self.rng.uniform(-2.0, 1.0, n)
        m = fixed_point(np.minimum(ratios, 2.0**13))
        M, shift = np.array(m.M, np.int16), np.array(m.shift, np.uint8)
        dead = self.rng.random(n) < 1 / 30
        M[dead], shift[dead] = 0, MAX_SHIFT
        return M, shift

    # -- ops ----------------------------------------------------------------------------------------------

    def dense(self, name: str, x: str, out: Signal, *, biased: bool | None = None) -> str:
        n, bits = self.signals[x].channels, self.choose("weight_bits", 8, 8, *range(1, 9))
        weight = self._bounded(self.codes(bits, out.channels, n), x, bits)
        size = self.spread[x] * max(2 ** (bits - 1) / 2, 1) * n**0.5
        biases = out.channels if (self.chance(0.6) if biased is None else biased) else 0
        M, shift = self.multipliers(size, out, out.channels)
        op = o.Dense(
            out=out,
            x=x,
            inputs=n,
            outputs=out.channels,
            bits=bits,
            biases=biases,
            weight=weight,
            bias=np.clip(self.rng.normal(0, size, biases), -(2**29), 2**29).astype(np.int32),
            M=M,
            shift=shift,
        )
        return self.write(op, out.high / 2)

    def _bounded(self, weight: np.ndarray, x: str, bits: int) -> np.ndarray:
        """Weights thinned out until their sums cannot overflow (beside a bias below 2^29)."""
        worst = np.abs(weight.astype(np.int64)).sum(axis=1) * self.signals[x].high
        if bits > 1:
            weight[worst > 2**30] //= 8
        return weight

    def embedding(self, x: str, out: Signal, tokens: int) -> str:
        table = self.rng.integers(out.low, out.high + 1, (tokens, out.channels)).astype(out.dtype)
        op = o.Embedding(out=out, x=x, tokens=tokens, outputs=out.channels, table=table)
        return self.write(op, out.high / 2)

    def norm(self, x: str, out: Signal) -> str:
        """Batch norm, folded, or layer norm. M lies below 2^14 where 2^15 M might overflow with the offset."""
        n, layer = out.channels, self.chance(0.4)
        typical = 2**NORM_BITS / n**0.5 if layer else max(self.spread[x], 1.0)
        gain = out.high / 2 / typical * 2.0 ** self.rng.uniform(-1.0, 0.5, n) * self.rng.choice([-1, 1], n)
        shift = np.clip(14 - np.frexp(gain)[1] - self.signals[x].bits // 16, 1, 27)
        M = np.clip(np.rint(np.ldexp(gain, shift)), -(2**14), 2**14).astype(np.int16)
        offset = np.ldexp(self.rng.normal(0, out.high / 4, n), shift)
        op = (o.LayerNorm if layer else o.Affine)(
            out=out,
            x=x,
            channels=n,
            M=M,
            offset=np.clip(offset, -(2**28), 2**28).astype(np.int32),
            shift=shift.astype(np.uint8),
        )
        return self.write(op, out.high / 2)

    def recurrence(self, name: str, x: str, *, reverse: bool) -> str:
        """Decay 0.3 to 1 at any angle; 2^-shift, or a multiplier, is the step of Lambda-bar's codes."""
        Bu, bits = self.signals[x], self.pick(16, 16, 8, 12, 3)
        modes, high = Bu.channels // 2, 2 ** (bits - 1) - 1
        radius, angle = 1 - 0.7 * self.rng.random(modes) ** 4, self.rng.uniform(0, 6.3, modes)
        re, im = np.rint(high * radius * np.cos(angle)), np.rint(high * radius * np.sin(angle))
        multiplier = fixed_point(1 / high)
        shifted = self.chance(0.5)
        if modes % 3 == 0:
            return self.polar_recurrence(name, x, reverse=reverse)
        op = o.Recurrence(
            out=self.signal(name, 2 * modes, Bu.bits),
            x=x,
            modes=modes,
            bits=bits,
            M=1 if shifted else int(multiplier.M),
            shift=bits - 1 if shifted else int(multiplier.shift),
            reverse=reverse,
            re=re.astype(np.int16),
            im=im.astype(np.int16),
            exponents=self.rng.integers(-20, 0, modes).astype(np.int8),
        )
        return self.write(op, op.out.high / 2)

    def polar_recurrence(self, name: str, x: str, *, reverse: bool) -> str:
        """Any codes: of 2 to 8 bits, with decays from 2^-14 to 1 and steps of up to many turns."""
        Bu, modes = self.signals[x], self.signals[x].channels // 2
        widths = {"decay": int(self.rng.integers(2, 9)), "angle": int(self.rng.integers(2, 9))}
        scales: dict[str, Any] = {}
        for part, bits in widths.items():
            unit = int(2 ** self.rng.uniform(0, 31))
            scales |= {f"{part}_bits": bits, f"{part}_mantissa": int(self.rng.integers(0, bits + 1)),
                       f"{part}_unit": unit}  # fmt: skip
        high = {part: 2 ** (bits - 1) for part, bits in widths.items()}
        op = o.PolarRecurrence(
            out=self.signal(name, 2 * modes, Bu.bits),
            x=x,
            modes=modes,
            reverse=reverse,
            exponents=self.rng.integers(-20, 0, modes).astype(np.int8),
            decays=self.rng.integers(-high["decay"], high["decay"], modes).astype(np.int8),
            angles=self.rng.integers(-high["angle"], high["angle"], modes).astype(np.int8),
            **scales,
        )
        return self.write(op, op.out.high / 2)

    def _state(self, name: str, Bu: str, out_bits: int, *, reverse: bool) -> str:
        """The state as C reads it."""
        q = self.recurrence(name, Bu, reverse=reverse)
        channels = self.signals[q].channels
        return q if self.choices.direct_states else self.shift(q, self.signal(f"{q}_out", channels, out_bits))

    def shift(self, x: str, out: Signal) -> str:
        modes = out.channels // 2
        right = self.signals[x].bits - out.bits + self.rng.integers(-3, 3, modes)
        op = o.Shift(out=out, x=x, modes=modes, shift=np.clip(right, -15, 15).astype(np.int8))
        return self.write(op, out.high / 2)

    def output(self, x: str, x_reverse: str | None, u: str, out: Signal) -> str:
        n = self.signals[x].channels * (1 if x_reverse is None else 2)
        bits = self.choose("weight_bits", 8, 8, *range(1, 9))
        size = self.spread[x] * max(2 ** (bits - 1) / 2, 1) * n**0.5
        D = self.rng.integers(-127, 128, out.channels).astype(np.int8)
        M, shift = self.multipliers(size, out, out.channels)
        direct = fixed_point(
            np.minimum(size / (self.spread[u] * 64 + 1) * 2.0 ** self.rng.uniform(-1, 1), 2.0**13)
        )
        op = o.Output(
            out=out,
            x=x,
            x_reverse=x_reverse,
            u=u,
            inputs=n,
            outputs=out.channels,
            bits=bits,
            C=self.codes(bits, out.channels, n),
            D=D,
            D_M=np.full(out.channels, direct.M, np.int16),
            D_shift=np.full(out.channels, direct.shift, np.uint8),
            M=M,
            shift=shift,
        )
        return self.write(op, out.high / 2)

    def table(self, x: str, out: Signal) -> str:
        s = self.signals[x]
        entries = np.linspace(-0.3 if out.signed else 0.0, 1.0, s.high - s.low + 1) ** 3 * out.high
        noise = self.rng.normal(0, out.high / 20, entries.shape)
        codes = np.clip(np.rint(entries + noise), out.low, out.high).astype(out.dtype)
        op = o.Table(out=out, x=x, function="noise", entries=len(codes), table=codes)
        return self.write(op, out.high / 2)

    def gelu(self, x: str, out: Signal) -> str:
        if self.signals[x].bits <= 8 and self.chance(0.5):
            return self.table(x, out)
        s = self.signals[x]
        offset = int(np.clip(s.high // int(self.pick(1, 2, 4)), 1, 2**14))
        shift = int(np.clip(int(s.high * offset // out.high).bit_length(), -15, 29)) - int(self.pick(0, 1))
        while shift < 0 and s.high * 2 * offset << -shift > INT32:
            shift += 1
        return self.write(o.QGelu(out=out, x=x, offset=offset, shift=shift), out.high / 3)

    def gate(self, x: str, out: Signal) -> str:
        s = self.signals[x]
        if s.bits <= 8 and out.bits <= 8 and self.chance(0.6):
            return self.table(x, out)
        offset = max(s.high // int(self.pick(1, 2)), 1)
        m = fixed_point(min(out.high / (2 * offset), 2.0**13))
        op = o.HardSigmoid(out=out, x=x, offset=offset, M=int(m.M), shift=int(m.shift))
        return self.write(op, out.high / 2)

    def multiply(self, x: str, y: str, out: Signal) -> str:
        a, b = self.signals[x].high, self.signals[y].high
        shift = max(-15, (a * b // out.high).bit_length() - int(self.pick(1, 2)))
        while shift < 0 and a * b << -shift > INT32:
            shift += 1
        return self.write(o.Multiply(out=out, x=x, y=y, shift=shift), out.high / 3)

    def add(self, x: str, y: str, out: Signal) -> str:
        return self.write(o.Add(out=out, x=x, y=y, shift=int(self.pick(0, 0, 1, 2, -1, -2))), out.high / 2)

    # -- the network --------------------------------------------------------------------------------------

    def layer(self, i: int, x: str, *, bidirectional: bool) -> str:
        """Norm, SSM, GELU, gate, residual; sometimes without a gate, sometimes with the norm behind."""
        H, name = self.signals[x].channels, f"layers.{i}"
        modes = self.choose("modes", *range(1, 20))
        u = self.norm(x, self.activation(f"{name}.norm", H))
        Bu = self.dense(
            f"{name}.ssm.Bu", u, self.signal(f"{name}.ssm.Bu", 2 * modes, self.pick(16, 16, 8, 12))
        )
        out_bits = int(self.pick(8, 8, self.rng.integers(2, 9)))
        states = [
            self._state(f"{name}.ssm.state{suffix}", Bu, out_bits, reverse=bool(suffix))
            for suffix in (["", "_reverse"] if bidirectional else [""])
        ]
        y = self.output(
            states[0], states[1] if bidirectional else None, u, self.activation(f"{name}.ssm.y", H)
        )
        g = self.gelu(y, self.activation(f"{name}.gelu", H))
        return self.add(x, self._gated(name, g, H), self.signal(f"{name}.residual", H, self.signals[x].bits))

    def _gated(self, name: str, g: str, H: int) -> str:
        if self.chance(0.2):
            return g
        gate = self.dense(f"{name}.gate", g, self.activation(f"{name}.gate", H))
        bits = 16 if self.choose("wide_unsigned", True, *[False] * 7) else int(self.pick(8, 8, 7, 1))
        sigmoid = self.gate(gate, self.signal(f"{name}.sigmoid", H, bits, signed=False))
        value = self.dense(f"{name}.value", g, self.activation(f"{name}.value", H)) if self.chance(0.3) else g
        return self.multiply(value, sigmoid, self.wide(f"{name}.product", H))

    def head(self, x: str, task: str, classes: int) -> None:
        if task == "classification":
            s = self.signals[x]
            pool = self.pick(o.MeanPool, o.MeanPool, o.LastPool)
            out = Signal(name="pool", channels=s.channels, bits=s.bits, signed=s.signed, exponent=s.exponent)
            x = self.write(pool(out=out, x=x), self.spread[x])
            if self.chance(0.3):
                x = self.gelu(
                    self.dense("hidden", x, self.activation("hidden", 9)), self.activation("hidden.gelu", 9)
                )
            if self.chance(0.2):
                x = self.multiply(x, x, self.signal("square", self.signals[x].channels, 16))
        self.dense("decoder", x, self.signal("decoder", classes, self.pick(16, 16, 8)), biased=True)

    def input(self, source: str) -> InputQuantizer:
        d = int(self.pick(1, 2, 3, 7))
        if source == "token":
            return InputQuantizer(source="token", out=self.signal("input", 1, self.pick(8, 16), signed=False))
        signed = source != "uint8" or self.chance(0.3)
        out = self.signal("input", d, self.pick(8, 16 if signed else 8, 5), signed=signed)
        if source == "codes":
            return InputQuantizer(source="codes", out=out)
        shift = int(self.rng.integers(8, 63))
        top = 255 if source == "uint8" else 2**15
        M = self.rng.normal(0, 2 * out.high / top, d) * 2.0 ** min(shift, 30)
        offset = self.rng.normal(0, out.high / 4, d) * 2.0**shift
        return InputQuantizer(
            source="uint8" if source == "uint8" else "int16",
            out=out,
            M=tuple(int(np.clip(m, -INT32, INT32)) for m in M),
            offset=tuple(int(np.clip(b, -(2.0**60), 2.0**60)) for b in offset),
            shift=shift,
        )

    def model(self) -> IntegerModel:
        source = self.choose("source", "uint8", "int16", "codes", "token")
        task = self.choose("task", "classification", "classification", "regression")
        bidirectional = self.choose("bidirectional", True, False, False)
        H, classes = self.choose("H", *range(1, 34)), int(self.pick(1, 2, 3, 10))
        q = self.input(source)
        self.signals["input"], self.spread["input"] = q.out, q.out.high / 2
        wide = self.wide("encoder", H)
        x = self.embedding("input", wide, 11) if source == "token" else self.dense("encoder", "input", wide)
        for i in range(self.choose("layers", 1, 2, 3)):
            x = self.layer(i, x, bidirectional=bidirectional)
        self.head(x, task, classes)
        max_length, description = self.pick(2**31 - 1, 65536, 100), _description(self.rng, task, classes)
        padding = self.choose("padding", "fed", "masked") if task == "classification" else "fed"
        return IntegerModel(
            task=task,
            input=q,
            ops=tuple(self.ops),
            max_length=max_length,
            padding=padding,
            description=description,
        )


def _description(rng: np.random.Generator, task: str, classes: int) -> Description:
    names = tuple(
        f'class "{i}" */ \\ ü' for i in range(classes)
    )  # what a name may hold must not hurt a backend
    regression = task == "regression"
    return Description(
        task="random",
        spec="random",
        widths="random",
        classes=None if regression else names,
        units=names if regression else None,
        provenance={"made by": "tests.conformance.models", "seed": str(int(rng.integers(1000)))},
    )
