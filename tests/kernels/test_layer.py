"""The whole-layer kernel against the layer that the network composes from single operations: values and gradients."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.grades import graded
from tests.support import small_inputs, small_model

from qs5.kernels import layer as kernel, native
from qs5.kernels.layer import SITES, LayerArrays, LayerOptions, check_shapes
from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.network import S5Model, forward
from qs5.model.recurrence import scan_sequential
from qs5.quantization.build import static_arithmetic
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.spec import spec_of
from qs5.quantization.static import StaticArithmetic

pytestmark = pytest.mark.skipif(not native.available(), reason="no native kernels")

FLOAT_TOLERANCE = 2e-5
"""Of the largest element of an array: float32, sums in another order, a logistic in place of a tanh."""
QUANTIZED_TOLERANCE = 0.02
"""The same where one in some thousand values may fall on the other side of a rounding threshold; what is rounded is
compared code by code in `test_quantized_codes_are_those_of_the_definition`."""

TIE, LAST_BITS, SUM_TOLERANCE = 1e-5, 4 * 2.0**-24, 1e-6
"""How near to a tie, in steps and relative to the value, float32 may take the other code; and sums, to the largest."""

EXACT_SITES = ("state_out", "product", "residual")
"""What is rounded there are products and sums of few integers and powers of two: exact in float32, ties too."""

SIZES = [(17, 2), (1, 1), (3, 5), (2, 2), (40, 9)]
"""(L, B). Statistics of a batch norm need more than one value: see _batch_stats."""
BOTH_WAYS: dict[str, Any] = {"bidirectional": True}
MASKED: dict[str, Any] = {**BOTH_WAYS, "padding": "masked", "head": "regression"}
"""With an output at every step: what a layer gives past the end of a sequence has a gradient, too."""


def _lengths(L: int, B: int) -> jax.Array:
    """From 1 step to L."""
    return jnp.asarray(np.linspace(1, L, B), jnp.int32)


def _probe(
    model: S5Model, arithmetic: Arithmetic, *, L: int, B: int, batch_stats: bool, dtype: Any = jnp.float32
) -> Any:
    """Everything that a forward pass gives and every gradient, also with respect to the carried states. Sequences
    have different lengths where the model masks padding."""
    x = jnp.swapaxes(small_inputs(B=B, L=L), 0, 1).astype(dtype)
    rng = np.random.default_rng(3)
    S = 2 * model.config.modes
    drawn = [rng.normal(size=(B, S)).astype(np.float32) for _ in model.layers]
    starts = tuple(jnp.asarray(v, dtype) for v in drawn)
    lengths = _lengths(L, B) if model.config.padding == "masked" else None

    return _values_and_gradients((model, starts), x, lengths, arithmetic, batch_stats)


@eqx.filter_jit
def _values_and_gradients(
    inputs: tuple[S5Model, Any],
    x: jax.Array,
    lengths: jax.Array | None,
    arithmetic: Arithmetic,
    batch_stats: bool,
) -> Any:
    def loss(inputs: Any) -> Any:
        model, starts = inputs
        out = forward(
            model,
            x,
            arithmetic=arithmetic,
            lengths=lengths,
            key=jax.random.key(0),
            batch_stats=batch_stats,
            states=starts,
        )
        ends = sum(jnp.sum(jnp.cos(state)) for state in out.states)
        return jnp.sum(jnp.sin(3.0 * out.value)) + ends, (out.value, out.states, out.statistics)

    return jax.value_and_grad(loss, has_aux=True)(inputs)


def _assert_close(mine: Any, theirs: Any, tolerance: float) -> None:
    for (path, a), (_, b) in zip(
        *(jax.tree_util.tree_leaves_with_path(t) for t in (mine, theirs)), strict=True
    ):
        scale = float(np.max(np.abs(b), initial=0.0)) + 1e-3
        np.testing.assert_allclose(a, b, rtol=0.0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def test_float_arithmetic_takes_whole_layers_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FloatArithmetic().takes_whole_layers
    assert not FloatArithmetic(scan_sequential).takes_whole_layers
    monkeypatch.setenv(native.VARIABLE, "0")
    assert not FloatArithmetic().takes_whole_layers


def _compare(model: S5Model, **args: Any) -> None:
    """The kernel against the composed layers."""
    expected = _probe(model, FloatArithmetic(scan_sequential), **args)
    _assert_close(_probe(model, FloatArithmetic(), **args), expected, FLOAT_TOLERANCE)


@pytest.mark.parametrize(("L", "B"), graded(SIZES, quick=1, slow=len(SIZES)))
def test_sizes(L: int, B: int) -> None:
    # Two layers where one hands its statistics to the next; elsewhere one is enough.
    _compare(small_model(dropout=0.3, layers=2 if L == 17 else 1), L=L, B=B, batch_stats=L * B > 4)


@pytest.mark.parametrize(("L", "B"), graded([(40, 9), (1, 1), (2, 2), (3, 5), (17, 2)], quick=1, slow=4))
def test_sizes_of_both_directions(L: int, B: int) -> None:
    # 40 steps of 9 sequences are several blocks, the last of them shorter, whatever the number of threads.
    _compare(small_model(dropout=0.3, layers=1, **BOTH_WAYS), L=L, B=B, batch_stats=L * B > 4)


@pytest.mark.parametrize(("L", "B"), graded([(40, 9), (1, 1), (2, 3), (3, 5), (17, 2)], quick=1, slow=4))
def test_sizes_of_masked_padding(L: int, B: int) -> None:
    _compare(small_model(dropout=0.3, layers=1, **MASKED), L=L, B=B, batch_stats=L * B > 4)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"norm": "layer"}, marks=pytest.mark.slow),
        {"norm": "layer", "norm_bias": False, "H": 7},
        {"gelu": "qgelu", "gate": "hard_sigmoid"},
        {"H": 33, "P": 34, "conj_sym": False},
        pytest.param({"norm": "layer", "H": 7, "P": 6, **BOTH_WAYS}, marks=pytest.mark.slow),
        pytest.param({"H": 33, "P": 34, "conj_sym": False, **BOTH_WAYS}, marks=pytest.mark.slow),
        {"norm": "layer", "H": 7, "P": 6, **MASKED},
        pytest.param({"H": 33, "P": 34, "conj_sym": False, **MASKED}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_options(changes: dict[str, Any]) -> None:
    _compare(small_model(layers=1, **changes), L=17, B=5, batch_stats=True)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"layers": 1}, {"layers": 2}, {"layers": 1, **BOTH_WAYS}], ids=str)
def test_wide_layers_are_as_near_to_float64_as_composed_ones(changes: dict[str, Any]) -> None:
    """Layers of this size multiply float32's rounding, in the kernel and without it: neither may be far worse.

    How far one float32 evaluation happens to be from float64 says little: nudging every weight by less than its last
    bit changes it threefold. The measure is the worst of several nudged evaluations of the composed layers.
    """
    model = small_model(H=96, P=128, **changes)
    args: dict[str, Any] = {"L": 17, "B": 5, "batch_stats": True}
    composed = FloatArithmetic(scan_sequential)
    with jax.enable_x64(True):
        exact = _leaves(_probe(_float64(model), composed, dtype=jnp.float64, **args))
    assert all(e.dtype == np.float64 for e in exact if e.size)

    def errors(model: S5Model, arithmetic: Arithmetic) -> np.ndarray:
        values = _leaves(_probe(model, arithmetic, **args))
        return np.array([np.max(np.abs(v - e), initial=0.0) for v, e in zip(values, exact, strict=True)])

    rounding = np.max([errors(_nudged(model, seed=seed), composed) for seed in range(4)], axis=0)
    scale = np.array([np.max(np.abs(e), initial=0.0) for e in exact])
    assert np.all(errors(model, FloatArithmetic()) <= 3.0 * rounding + FLOAT_TOLERANCE / 10 * scale)


def _leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _nudged(model: S5Model, *, seed: int) -> S5Model:
    """The model with every weight changed by at most half a unit in the last place."""
    rng = np.random.default_rng(seed)

    def nudged(leaf: Any) -> Any:
        value = np.asarray(leaf)
        if value.dtype != np.float32:
            return leaf
        return jnp.asarray(
            (value * (1.0 + rng.uniform(-1.0, 1.0, value.shape) * 2.0**-24)).astype(np.float32)
        )

    return jax.tree.map(nudged, model)


def _float64(tree: Any) -> Any:
    return jax.tree.map(lambda v: jnp.asarray(np.asarray(v, np.float64)), tree)


@pytest.mark.parametrize(
    "changes",
    graded([{"prenorm": False}, {"activation": "half_glu2"}, {"activation": "gelu"}], quick=1, slow=2),
    ids=str,
)
def test_other_layers_are_composed_from_operations(changes: dict[str, Any]) -> None:
    _compare(small_model(layers=1, **changes), L=5, B=2, batch_stats=False)


def _calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of every call of the kernel from now on."""
    calls: list[Any] = []
    run = kernel.layer
    monkeypatch.setattr(kernel, "layer", lambda *call: calls.append(call) or run(*call))
    return calls


@pytest.mark.parametrize("padding", ["fed", "masked"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_those_of_layers_whose_padding_is_masked(
    padding: str, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a scan from the right has to know them."""
    model = small_model(layers=1, padding=padding, bidirectional=bidirectional)
    x, lengths = jnp.swapaxes(small_inputs(B=3, L=6), 0, 1), jnp.asarray([6, 2, 4])
    calls = _calls(monkeypatch)
    composed = forward(model, x, arithmetic=FloatArithmetic(scan_sequential), lengths=lengths)
    assert not calls
    mine = forward(model, x, arithmetic=FloatArithmetic(), lengths=lengths)
    _assert_close(mine.value, composed.value, FLOAT_TOLERANCE)
    forward(model, x, arithmetic=FloatArithmetic())
    (_, padded), (_, full) = calls
    masked = padding == "masked" and bidirectional
    np.testing.assert_array_equal(padded.lengths, lengths if masked else [])
    assert full.lengths.shape == (0,)


def test_masked_padding_under_vmap() -> None:
    """Two models on the same batch, as `fit_together` trains them."""
    models = [small_model(seed, layers=1, **MASKED) for seed in (0, 1)]
    x, lengths = jnp.swapaxes(small_inputs(B=3, L=6), 0, 1), jnp.asarray([6, 1, 4])

    def loss(model: S5Model, lengths: jax.Array) -> jax.Array:
        value = forward(model, x, arithmetic=FloatArithmetic(), lengths=lengths, batch_stats=True).value
        return jnp.sum(jnp.sin(value))

    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    gradient = jax.jit(jax.grad(loss))
    for axis, given in ((None, lengths), (0, jnp.stack([lengths, lengths]))):
        gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(0, axis)))(together, given)
        for i, model in enumerate(models):
            alone = gradient(model, lengths)
            _assert_close(jax.tree.map(lambda g, i=i: g[i], gradients), alone, FLOAT_TOLERANCE)


def _static(model: S5Model, spec: str) -> tuple[StaticArithmetic, StaticArithmetic]:
    """With kernels and without."""
    x = jnp.swapaxes(small_inputs(B=9, L=40), 0, 1)
    resolved = spec_of(spec)
    plan = plan_grids(calibrate(model, [(x, None)], data="test"), resolved, model.config)
    arithmetic = static_arithmetic(resolved, model.config, plan)
    return arithmetic, dataclasses.replace(arithmetic, kernels=False)


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        ("W8A8Abar16", {"dropout": 0.3}),
        ("W8A8Abar16", {"norm": "layer", "dropout": 0.3, **MASKED}),
        pytest.param("W8A8Abar16", {"norm": "layer", "dropout": 0.3, **BOTH_WAYS}, marks=pytest.mark.slow),
        pytest.param("W8A8Abar16", {"dropout": 0.3, **MASKED}, marks=pytest.mark.slow),
        pytest.param("W8A8", {"norm": "layer", "H": 7, "P": 6, **MASKED}, marks=pytest.mark.slow),
        pytest.param("W4A8", {"H": 16, "P": 32}, marks=pytest.mark.slow),
        pytest.param("W4A8", {"H": 16, "P": 32, **BOTH_WAYS}, marks=pytest.mark.slow),
        pytest.param("W8A8,state=float", BOTH_WAYS, marks=pytest.mark.slow),
        pytest.param("W8A8,state=float", {"norm": "layer"}, marks=pytest.mark.slow),
        pytest.param("W8A8,residual=float,act=float", {"H": 7, "P": 6}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_quantized(spec: str, changes: dict[str, Any]) -> None:
    model = small_model(**{"layers": 1, **changes})
    native_kernels, composed = _static(model, spec)
    assert native_kernels.takes_whole_layers and not composed.takes_whole_layers
    args: dict[str, Any] = {"L": 17, "B": 5, "batch_stats": False}
    mine, expected = (_probe(model, a, **args) for a in (native_kernels, composed))
    _assert_close(mine, expected, QUANTIZED_TOLERANCE)


class Oracle:
    """A quantized layer in float64, one operation after the other. `doubtful`: per site, which codes float32 may miss.

    A sum of float32 numbers is wrong by some of their last bits. Where the exact sum is nearer than that to a tie
    between two codes, either code is right.
    """

    def __init__(self, options: LayerOptions, arrays: LayerArrays) -> None:
        self.options, self.doubtful = options, dict[str, np.ndarray]()
        self.a: Any = arrays._make(np.asarray(v, np.float64) for v in arrays)

    def codes(self, site: str, v: np.ndarray) -> np.ndarray:
        """v on the grid of a site, in codes."""
        inverse, _, low, high = self.a.grids[SITES.index(site), :, : v.shape[-1]]
        scaled = v * inverse
        to_tie = np.abs(scaled - np.floor(scaled) - 0.5)
        inexact = site not in EXACT_SITES
        self.doubtful[site] = inexact & (to_tie < TIE + LAST_BITS * np.abs(scaled))
        return np.clip(np.floor(scaled + 0.5), low[0], high[0])

    def on_grid(self, site: str, v: np.ndarray) -> np.ndarray:
        """v on the grid of a site; v itself where there is none."""
        if not self.options.rounded[SITES.index(site)]:
            return v
        return self.codes(site, v) * self.step(site, v)

    def step(self, site: str, v: np.ndarray) -> np.ndarray:
        """The step of each channel of v."""
        return self.a.grids[SITES.index(site), 1, : v.shape[-1]]

    def norm(self) -> np.ndarray:
        x = self.a.x
        if self.options.epsilon is not None:
            x = x - x.mean(-1, keepdims=True)
            x = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + self.options.epsilon)
        u = self.on_grid("norm", x * self.a.gain + self.a.offset)
        ends = self.a.lengths if self.a.lengths.size else np.full(u.shape[1], len(u))
        return np.where(np.arange(len(u))[:, None, None] < ends[None, :, None], u, 0.0)

    def states(self, site: str, v: np.ndarray, before: np.ndarray) -> np.ndarray:
        """One step from each of the states `before`."""
        M = v.shape[-1] // 2
        a, q = self.a.a[:M] + 1j * self.a.a[M:], before[..., :M] + 1j * before[..., M:]
        return self.on_grid(site, np.concatenate([(a * q).real, (a * q).imag], -1) + v)

    def y(self, states: dict[str, np.ndarray], u: np.ndarray) -> np.ndarray:
        """From the states of each direction, by their site."""
        read = [self.codes(f"{site}_out", s) for site, s in states.items()]
        return np.concatenate(read, axis=-1) @ self.a.C + self.a.D * u

    def gelu(self, y: np.ndarray) -> np.ndarray:
        y = self.on_grid("y", y)
        return self.on_grid("gelu", 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))))

    def out(self, g: np.ndarray, z: np.ndarray) -> np.ndarray:
        opening = self.on_grid("sigmoid", 1 / (1 + np.exp(-self.on_grid("gate", z))))
        return self.on_grid("residual", self.a.x + self.on_grid("product", g * opening))


def _kernel_call(model: S5Model, monkeypatch: pytest.MonkeyPatch) -> tuple[LayerOptions, LayerArrays]:
    """What the kernel is given for a small layer under W8A8Abar16."""
    calls = _calls(monkeypatch)
    x, lengths = jnp.swapaxes(small_inputs(B=9, L=40), 0, 1), _lengths(40, 9)
    forward(model, x, arithmetic=_static(model, "W8A8Abar16")[0], lengths=lengths)
    return calls[0]


def _coarser_from_right(grids: jax.Array) -> jax.Array:
    """With twice the steps in the direction from the right: calibration gives both directions of a small layer nearly
    the same grids, and a kernel that took one for the other would not be seen."""
    rows = np.array([SITES.index(site) for site in ("state_reverse", "state_reverse_out")])
    return grids.at[rows, 0].divide(2.0).at[rows, 1].multiply(2.0)


@pytest.mark.parametrize(
    ("norm", "changes"),
    [("batch", {}), ("layer", {}), ("layer", BOTH_WAYS), ("batch", MASKED), ("layer", MASKED)],
    ids=str,
)
def test_quantized_codes_are_those_of_the_definition(
    norm: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation on what the kernel had before it: equal codes but at ties, and there the neighbour.

    So the kernel and the composed layer differ in nothing but the order of their sums: once a sum lies at a tie, the
    recurrence carries the one code on, which is why whole forward passes can be compared by a tolerance only.
    """
    model = small_model(layers=1, H=12, P=16, norm=norm, **changes)
    bidirectional = model.config.bidirectional
    options, arrays = _kernel_call(model, monkeypatch)
    assert arrays.lengths.size == (9 if model.config.padding == "masked" else 0)
    arrays = arrays._replace(grids=_coarser_from_right(arrays.grids))
    directions = ("state", "state_reverse") if bidirectional else ("state",)
    unused = set() if bidirectional else {"state_reverse", "state_reverse_out"}
    assert set(SITES) - unused == {site for site, on in zip(SITES, options.rounded, strict=True) if on}
    kept = kernel._forward(options, arrays, save=True)
    out, _, _, last, saved, y, z, _ = (np.asarray(v, np.float64) for v in kept)
    states: dict[str, np.ndarray] = dict(zip(directions, saved, strict=True))
    oracle = Oracle(options, arrays)
    u = oracle.norm()
    Bu = oracle.on_grid("Bu", u @ oracle.a.B)
    g = oracle.gelu(y)
    before = {"state": np.concatenate([oracle.a.x0[None], saved[0, :-1]])}
    before["state_reverse"] = np.concatenate([saved[-1, 1:], np.zeros_like(oracle.a.x0)[None]])
    found = {
        **{site: (s, oracle.states(site, Bu, before[site])) for site, s in states.items()},
        "y": (y, oracle.y(states, u)),
        "z": (z, g @ oracle.a.W + oracle.a.b),
        "residual": (out, oracle.out(g, z)),
    }
    np.testing.assert_array_equal(last, states["state"][-1])
    # A step that reads a doubtful code is not compared; there are few.
    clear = {
        "norm": ~oracle.doubtful["norm"].any(-1),
        "gelu": ~(oracle.doubtful["y"] | oracle.doubtful["gelu"]).any(-1),
    }
    assert min(rows.mean() for rows in clear.values()) > 0.95
    for name, rows in (("y", clear["norm"]), ("z", clear["gelu"])):
        mine, exact = (v[rows] for v in found[name])
        np.testing.assert_allclose(
            mine, exact, rtol=0.0, atol=SUM_TOLERANCE * np.abs(exact).max(), err_msg=name
        )
    for name, rows, through in (
        *((site, clear["norm"], ("Bu", site)) for site in directions),
        ("residual", clear["gelu"], ("gate", "sigmoid")),
    ):
        mine, exact = (v[rows] for v in found[name])
        apart = np.abs(mine - exact) / oracle.step(name, mine)
        doubtful = np.any([oracle.doubtful[site][rows] for site in through], axis=0)
        assert np.all(apart[~doubtful] == 0.0), name
        assert doubtful.mean() < 0.05, name
        if name in directions:
            assert apart.max() <= len(through)


def test_arrays_that_do_not_fit_are_refused() -> None:
    sizes = {"x": (3, 2, 5), "gain": (5,), "offset": (5,), "a": (4,), "B": (5, 4), "C": (4, 5), "D": (5,),
             "W": (5, 5), "b": (5,), "m1": (0, 0), "m2": (2, 5), "x0": (2, 4), "grids": (0, 0, 0)}  # fmt: skip
    floats = {name: jnp.zeros(shape) for name, shape in sizes.items()}
    arrays = LayerArrays(**floats, lengths=jnp.asarray([3, 1], jnp.int32))
    check_shapes(arrays)
    check_shapes(arrays._replace(lengths=kernel.no_lengths()))
    for name in sizes:
        if name != "x":
            with pytest.raises(ValueError, match=f"{name}: expected float32"):
                check_shapes(arrays._replace(**{name: jnp.zeros((9, 9))}))
    for lengths in (jnp.zeros(2), jnp.zeros(3, jnp.int32), jnp.zeros((2, 1), jnp.int32)):
        with pytest.raises(ValueError, match="lengths: expected int32"):
            check_shapes(arrays._replace(lengths=lengths))


def test_flags_laid_out_for_other_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    options, arrays = _kernel_call(small_model(layers=1, H=12, P=16, norm="batch"), monkeypatch)
    kernel._forward(options, arrays, save=True)
    monkeypatch.setattr(kernel, "FLAGS", 2 * kernel.FLAGS)
    with pytest.raises(jax.errors.JaxRuntimeError, match="inside: expected 11520 elements, got 23040"):
        jax.block_until_ready(kernel._forward(options, arrays, save=True))
