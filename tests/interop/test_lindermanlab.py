"""`from_lindermanlab` against outputs of the original code (tests/golden/README.md)."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qs5.interop import from_lindermanlab
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import S5Model, forward, with_statistics
from qs5.model.recurrence import scan_associative, scan_sequential

# float32 on both sides, sums in another order; relative to 1 + |expected|.
LOG_PROBABILITY_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-5
STATISTICS_TOLERANCE = 1e-6

OPTIONS = (
    "activation",
    "pooling",
    "prenorm",
    "clip_eigs",
    "discretization",
    "conj_sym",
    "step_rescale",
)
INFERRED = ("d_in", "d_out", "layers", "H", "P", "norm", "bidirectional")

with np.load(Path(__file__).parents[1] / "golden" / "lindermanlab.npz", allow_pickle=False) as archive:
    GOLDEN = dict(archive)
CASES: dict[str, dict[str, Any]] = json.loads(str(GOLDEN["cases.json"]))
EVALUATION = [name for name, case in CASES.items() if case["mode"] == "eval"]
TRAINING = [name for name, case in CASES.items() if case["mode"] == "train"]


def title(name: str) -> str:
    return f"{name}: {CASES[name]['note']}"


def subtree(prefix: str) -> dict[str, Any]:
    """The arrays below a prefix as nested dicts."""
    tree: dict[str, Any] = {}
    for key, array in GOLDEN.items():
        if key.startswith(prefix + "/"):
            *path, leaf = key.removeprefix(prefix + "/").split("/")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[leaf] = array
    return tree


def variables(name: str) -> dict[str, Any]:
    return subtree(CASES[name]["tree"])


def options(name: str) -> dict[str, Any]:
    heads = {head: CASES[name]["head"] == head for head in ("retrieval", "regression")}
    return heads | {key: CASES[name][key] for key in OPTIONS}


def inputs(name: str) -> tuple[jax.Array, jax.Array | None]:
    lengths = GOLDEN.get(f"{name}/lengths")
    return jnp.asarray(GOLDEN[f"{name}/x"]), None if lengths is None else jnp.asarray(lengths)


def outputs(name: str, logits: jax.Array) -> np.ndarray:
    regression = CASES[name]["head"] == "regression"
    return np.asarray(logits if regression else jax.nn.log_softmax(logits))


def assert_close(got: Any, expected: np.ndarray, tolerance: float) -> None:
    got = np.asarray(got)
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", EVALUATION, ids=title)
def test_outputs_are_the_originals(name: str):
    model = from_lindermanlab(variables(name), **options(name))
    got = outputs(name, model(*inputs(name)))
    assert_close(got, GOLDEN[f"{name}/expected"], LOG_PROBABILITY_TOLERANCE)


@pytest.mark.parametrize("scan", [scan_sequential, scan_associative])
@pytest.mark.parametrize("note", ["base", "bidirectional", "no conjugate symmetry"])
def test_either_scan_gives_the_originals_outputs(note: str, scan: Any):
    name = case_named(note)
    model = from_lindermanlab(variables(name), **options(name))
    x, lengths = inputs(name)
    out = forward(model, jnp.swapaxes(x, 0, 1), arithmetic=FloatArithmetic(scan), lengths=lengths)
    assert_close(outputs(name, out.value), GOLDEN[f"{name}/expected"], LOG_PROBABILITY_TOLERANCE)


@pytest.mark.parametrize("name", CASES, ids=title)
def test_sizes_and_operators_are_read_from_the_tree(name: str):
    config = from_lindermanlab(variables(name), **options(name)).config
    assert {key: getattr(config, key) for key in INFERRED} == {key: CASES[name][key] for key in INFERRED}


def case_named(note: str) -> str:
    return next(name for name, case in CASES.items() if case["note"] == note)


def training_loss(model: S5Model, name: str) -> tuple[jax.Array, Any]:
    x, lengths = inputs(name)
    out = forward(
        model, jnp.swapaxes(x, 0, 1), arithmetic=FloatArithmetic(), lengths=lengths, batch_stats=True
    )
    log_probabilities = jax.nn.log_softmax(out.value)
    labels = GOLDEN[f"{name}/labels"]
    return -jnp.mean(log_probabilities[np.arange(len(labels)), labels]), (log_probabilities, out.statistics)


@pytest.mark.parametrize("name", TRAINING, ids=title)
def test_training_step_has_the_originals_loss_gradient_and_statistics(name: str):
    model = from_lindermanlab(variables(name), **options(name))
    (loss, (log_probabilities, statistics)), gradient = jax.value_and_grad(training_loss, has_aux=True)(
        model, name
    )
    assert_close(log_probabilities, GOLDEN[f"{name}/expected"], LOG_PROBABILITY_TOLERANCE)
    assert_close(loss, GOLDEN[f"{name}/loss"], LOG_PROBABILITY_TOLERANCE)
    # A gradient has the shape of the parameters, so the same reader takes it; the statistics are not trained.
    expected = from_lindermanlab(
        subtree(f"{name}/gradient") | {"batch_stats": variables(name).get("batch_stats")}, **options(name)
    )
    for mine, original in zip(trained(gradient), trained(expected), strict=True):
        assert_close(mine, np.asarray(original), GRADIENT_TOLERANCE)
    if updated := subtree(f"{name}/updated"):
        model = with_statistics(model, statistics)
        after = from_lindermanlab(variables(name) | updated, **options(name))
        for mine, original in zip(model.layers, after.layers, strict=True):
            assert_close(mine.norm.mean, np.asarray(original.norm.mean), STATISTICS_TOLERANCE)
            assert_close(mine.norm.var, np.asarray(original.norm.var), STATISTICS_TOLERANCE)


def trained(model: S5Model) -> list[jax.Array]:
    """Trained arrays in a fixed order."""
    parts = [(x.norm.scale, x.norm.bias, x.ssm, x.value, x.gate) for x in model.layers]
    return jax.tree.leaves((model.encoder, parts, model.hidden, model.decoder))


def base(**changes: Any) -> S5Model:
    return from_lindermanlab(variables("case00"), **(options("case00") | changes))


def without(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """The nested dict without one entry."""
    head, _, rest = path.partition("/")
    return {k: without(v, rest) if k == head and rest else v for k, v in tree.items() if rest or k != head}


def replaced(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The nested dict with one entry set."""
    head, _, rest = path.partition("/")
    return tree | {head: replaced(tree.get(head, {}), rest, value) if rest else value}


def test_norm_without_bias_is_one_with_zero_bias():
    tree = variables(case_named("layer norm"))
    layers = [f"params/encoder/layers_{i}/norm/bias" for i in range(2)]
    zeroed, stripped = tree, tree
    for path in layers:
        zeroed = replaced(zeroed, path, np.zeros(6, np.float32))
        stripped = without(stripped, path)
    x, _ = inputs("case00")
    plain = from_lindermanlab(stripped, activation="half_glu1")
    assert not plain.config.norm_bias
    np.testing.assert_array_equal(plain(x), from_lindermanlab(zeroed, activation="half_glu1")(x))


@pytest.mark.parametrize(
    ("note", "head"),
    [("base", "classification"), ("retrieval, padded", "retrieval"), ("regression", "regression")],
)
def test_head_is_the_one_asked_for(note: str, head: str):
    name = case_named(note)
    assert from_lindermanlab(variables(name), **options(name)).config.head == head


def test_rest_of_a_training_state_is_ignored():
    state = variables("case00") | {"step": 3, "opt_state": {"mu": np.zeros(2)}}
    assert from_lindermanlab(state, activation="half_glu1").config == base().config


def test_double_precision_becomes_float32():
    wide = jax.tree.map(np.float64, variables("case00"))
    arrays = jax.tree.leaves(from_lindermanlab(wide, activation="half_glu1"))
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "relu"}, r"activation: expected one of gelu, half_glu1, .*got 'relu'"),
        ({"pooling": "max"}, r"pooling: expected one of mean, last, got 'max'"),
        ({"discretization": "euler"}, r"discretization: expected one of zoh, bilinear, got 'euler'"),
        ({"gelu": "relu"}, r"gelu: expected one of gelu, qgelu"),
        ({"gate": "relu"}, r"gate: expected one of sigmoid, hard_sigmoid"),
        ({"activation": "gelu"}, r"the tree has \('out2',\); pass 'half_glu1' or 'half_glu2'"),
        ({"activation": "full_glu"}, r"\('out1', 'out2'\), the tree has \('out2',\)"),
        ({"retrieval": True}, r"retrieval=True, but the decoder has one dense layer; pass retrieval=False"),
        ({"retrieval": True, "regression": True}, r"expected retrieval=True or regression=True, got both"),
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\), got 1.5"),
    ],
)
def test_unfitting_options_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        base(**changes)


@pytest.mark.parametrize("regression", [False, True])
def test_a_retrieval_tree_must_be_called_one(regression: bool):
    tree = variables(case_named("retrieval, padded"))
    with pytest.raises(ValueError, match="has two dense layers; pass retrieval=True"):
        from_lindermanlab(tree, activation="half_glu1", regression=regression)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("params/encoder/layers_1/seq/D", np.zeros(5), r"layers_1/seq/D: expected shape \(6,\), got \(5,\)"),
        (
            "params/encoder/layers_0/seq/C",
            np.zeros((6, 7, 2)),
            r"C: expected shape \(6, 4, 2\), got \(6, 7, 2\)",
        ),
        ("params/encoder/layers_1/seq/C3", np.zeros(1), r"layers_1/seq/C3: unexpected, shape \(1,\)"),
        (
            "params/encoder/layers_3/seq/D",
            np.zeros(6),
            r"layers_2/seq/Lambda_re: missing, expected shape \(4,\)",
        ),
        (
            "params/encoder/layers_0/seq/B",
            np.zeros((4, 6, 2), np.complex64),
            r"B: .*real .*got type complex64",
        ),
        ("params/encoder/layers_0/seq/D", None, r"D: .*real .*got type object"),
        ("params/encoder/encoder/kernel", np.zeros(6), r"kernel: expected shape \(d_in, H\), got \(6,\)"),
    ],
)
def test_wrong_arrays_are_refused(path: str, value: Any, message: str):
    with pytest.raises(ValueError, match=message):
        from_lindermanlab(replaced(variables("case00"), path, value), activation="half_glu1")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("params/encoder/layers_1/seq/log_step", r"log_step: missing, expected shape \(4, 1\)"),
        ("params/encoder/layers_0/seq/C", r"layers_0/seq/C1: missing, expected shape \(6, 4, 2\)"),
        ("params/encoder/layers_0/norm/scale", r"norm/scale: missing"),
        ("batch_stats/encoder/layers_1/norm/var", r"batch_stats/encoder/layers_1/norm/var: missing"),
        (
            "params/decoder",
            r"expected an array \(H, d_out\) at params/decoder/kernel, got a tree with .* more",
        ),
        ("params/encoder", r"expected an array \(d_in, H\) at params/encoder/encoder/kernel"),
        ("params", r'expected a nested dict with the key "params", got \[\'batch_stats\'\]; wrap'),
    ],
)
def test_missing_arrays_are_refused(path: str, message: str):
    with pytest.raises(ValueError, match=message):
        from_lindermanlab(without(variables("case00"), path), activation="half_glu1")


def test_all_differences_are_reported_at_once():
    tree = without(variables("case00"), "params/encoder/layers_1/seq/D")
    tree = replaced(tree, "params/encoder/layers_0/seq/D", np.zeros(5))
    with pytest.raises(ValueError, match=r"(?s)layers_1/seq/D: missing.*layers_0/seq/D: expected"):
        from_lindermanlab(tree, activation="half_glu1")


def test_something_else_than_a_dict_is_refused():
    with pytest.raises(ValueError, match=r"expected a nested dict .* got list"):
        from_lindermanlab([1, 2], activation="half_glu1")  # type: ignore[arg-type]
