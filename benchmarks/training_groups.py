"""The groups of `python -m benchmarks`: which training steps take turns, and which of them are compared."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.training_step import OfficialFormulation, Step
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.config import ModelConfig
from qs5.model.recurrence import scan_associative, scan_sequential

BATCH, LENGTH = 50, 784
FULL = ModelConfig(d_in=1, d_out=10, layers=4, H=96, P=128, dropout=0.1)
"""Of recipes/smnist.toml: batch norm."""
HALF = FULL.replace(layers=2, H=64, P=64)

JAX, OFFICIAL = "float, sequential scan", "float, official formulation"
NATIVE, WHOLE = "float, native kernels", "float, native kernels, with the optimizer"
LAYER, BATCH_NORM, BOTH_WAYS = (
    "float, layer norm, native kernels",
    "float, batch norm, native kernels",
    "float, layer norm, bidirectional, native kernels",
)
SPECS = ("W8A8", "W8A8Abar16")
LIMIT = "at most 1.15"
PAPER = "QAT W8A8, the paper's way"
PAPER_SPEC = "W8A8,schedule=parallel,range_rule=aqt,quantized_backward=true"


@dataclass(frozen=True, kw_only=True)
class Quotient:
    """How many times longer one step of a group takes than another, and the project's goal for it."""

    title: str
    over: str
    under: str
    goal: str = "-"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Steps that take turns. The first is the reference of the table's ratios.

    shares: steps whose share of the float32 peak is said, and the goals for it; the peak then takes turns too.
    """

    title: str
    about: str
    steps: Mapping[str, Step]
    quotients: tuple[Quotient, ...] = ()
    shares: Mapping[str, str]
    batch: int
    length: int


def groups(
    *, full: ModelConfig = FULL, half: ModelConfig = HALF, batch: int = BATCH, length: int = LENGTH
) -> dict[str, Group]:
    """By the name that the command line takes, in the order of the page."""
    made = {"training": _training(full), "sizes": _sizes(half), "norms": _norms(full), "qat": _qat(full)}
    made["qat-jax"] = _qat_without_kernels(full)
    made["paper"] = _paper(half)
    return {
        name: Group(
            title=title, about=about, steps=steps, quotients=quotients, shares=shares, batch=batch, length=length
        )
        for name, (title, about, steps, quotients, shares) in made.items()
    }  # fmt: skip


_Parts = tuple[str, str, dict[str, Step], tuple[Quotient, ...], dict[str, str]]


def _training(c: ModelConfig) -> _Parts:
    steps = {
        JAX: Step(config=c, arithmetic=FloatArithmetic(scan_sequential)),
        OFFICIAL: Step(config=c, arithmetic=OfficialFormulation()),
        "float, associative scan, packed real products": Step(
            config=c, arithmetic=FloatArithmetic(scan_associative)
        ),
        NATIVE: Step(config=c),
        WHOLE: Step(config=c, optimizer=True),
    }
    quotients = (
        Quotient(title="official formulation over native kernels", over=OFFICIAL, under=NATIVE, goal="at least 6"),
        Quotient(title="official formulation over JAX alone", over=OFFICIAL, under=JAX),
    )  # fmt: skip
    goal = "at least 45 %"
    return "Float, paper size", describe(c), steps, quotients, {NATIVE: goal, WHOLE: goal}


def _sizes(c: ModelConfig) -> _Parts:
    steps = {
        OFFICIAL: Step(config=c, arithmetic=OfficialFormulation()),
        NATIVE: Step(config=c),
        WHOLE: Step(config=c, optimizer=True),
    }
    quotient = Quotient(
        title="official formulation over native kernels", over=OFFICIAL, under=NATIVE, goal="at least 5"
    )
    return "Float, half size", describe(c), steps, (quotient,), {NATIVE: "-", WHOLE: "-"}


def _norms(c: ModelConfig) -> _Parts:
    layer = c.replace(norm="layer")
    steps = {
        LAYER: Step(config=layer),
        BATCH_NORM: Step(config=c.replace(norm="batch")),
        BOTH_WAYS: Step(config=layer.replace(bidirectional=True)),
    }
    quotients = (
        Quotient(title="batch norm over layer norm", over=BATCH_NORM, under=LAYER, goal="at most 1.6"),
        Quotient(title="bidirectional over unidirectional", over=BOTH_WAYS, under=LAYER, goal="at most 1.6"),
    )
    about = f"{describe(c, norm=False)} C of the bidirectional model has twice the columns."
    return "Norms and directions", about, steps, quotients, dict.fromkeys(steps, "-")


def _qat(c: ModelConfig) -> _Parts:
    steps: dict[str, Step] = {}
    quotients = []
    for base, config in (
        (LAYER, c.replace(norm="layer")),
        (BATCH_NORM, c.replace(norm="batch")),
    ):
        steps[base] = Step(config=config)
        for spec in SPECS:
            name = base.replace("float", f"QAT {spec}")
            steps[name] = Step(config=config, spec=spec)
            title = f"QAT {spec} over float, {config.norm} norm"
            quotients.append(Quotient(title=title, over=name, under=base, goal=LIMIT))
    about = f"{describe(c, norm=False)} QAT in its simulated mode; with batch norm it folds the running statistics."
    return "Quantized (QAT) over float", about, steps, tuple(quotients), {}


def _qat_without_kernels(c: ModelConfig) -> _Parts:
    steps = {JAX: Step(config=c, arithmetic=FloatArithmetic(scan_sequential))}
    quotients = []
    for spec in SPECS:
        simulated, native = f"QAT {spec}, simulated", f"QAT {spec}, simulated, native kernels"
        steps[simulated] = Step(config=c, spec=spec, kernels=False)
        steps[native] = Step(config=c, spec=spec)
        steps[f"QAT {spec}, exact integers"] = Step(config=c, spec=f"{spec},exact=true")
        quotients.append(
            Quotient(title=f"{spec}: JAX alone over native kernels", over=simulated, under=native)
        )
    return "Quantized (QAT), JAX alone", describe(c), steps, tuple(quotients), {}


def _paper(c: ModelConfig) -> _Parts:
    plain = c.replace(norm="layer", norm_bias=False)
    replaced = plain.replace(gelu="qgelu", gate="hard_sigmoid")
    native, jax = f"{PAPER}, native scan", f"{PAPER}, JAX alone"
    steps = {
        LAYER: Step(config=plain),
        native: Step(config=replaced, spec=PAPER_SPEC),
        jax: Step(config=replaced, spec=PAPER_SPEC, kernels=False),
    }
    quotients = (
        Quotient(title=f"{PAPER} over float", over=native, under=LAYER),
        Quotient(title=f"{PAPER}: JAX alone over the native scan", over=jax, under=native),
    )
    about = f"{describe(plain)} The paper's way quantizes gradients, too, and has qGELU and the hard sigmoid."
    return "Quantized the paper's way, half size", about, steps, quotients, {}


def describe(c: ModelConfig, *, norm: bool = True) -> str:
    """The network in words."""
    layers = "1 layer" if c.layers == 1 else f"{c.layers} layers"
    kind = f"{c.norm} norm, " if norm else ""
    return f"{layers}, H = {c.H}, P = {c.P}, {kind}dropout {c.dropout:g}."
