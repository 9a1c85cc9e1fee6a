"""Models trained with the original S5 code (lindermanlab/S5) and its quantized fork (Q-S5).

The variables are what flax hands back: `{"params": ..., "batch_stats": ...}`, nested dicts of arrays. Sizes,
norm, direction and kind of decoder are read from them; options that leave no trace in them are arguments.

| there, below `params`          | here                     | shape                                |
|--------------------------------|--------------------------|--------------------------------------|
| `encoder/encoder`              | `encoder`                | kernel (D, H), bias (H,)             |
| `encoder/layers_i/norm`        | `layers[i].norm`         | scale, bias (H,)                     |
| `encoder/layers_i/seq`         | `layers[i].ssm`          | see `_ssm_shapes`                    |
| `encoder/layers_i/out1`        | `layers[i].value`        | kernel (H, H), bias (H,)             |
| `encoder/layers_i/out2`        | `layers[i].gate`         | kernel (H, H), bias (H,)             |
| `decoder`                      | `decoder`                | kernel (H, classes), bias (classes,) |
| `decoder/layer1`, `/layer2`    | `hidden`, `decoder`      | retrieval: (4H, H), (H, classes)     |

Running statistics of batch norm are below `batch_stats`, at the path of the norm.
Source: lindermanlab/S5 `s5/ssm.py`, `s5/layers.py`, `s5/seq_model.py`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from qs5.model.config import Activation, Discretization, Gate, Gelu, Head, ModelConfig, Pooling
from qs5.model.layer import Dense, Layer
from qs5.model.network import S5Model
from qs5.model.norms import Norm
from qs5.model.ssm import SSM

Leaves: TypeAlias = dict[str, np.ndarray]
Shapes: TypeAlias = dict[str, tuple[int, ...]]

ENCODER = "params/encoder/encoder"
DECODER = "params/decoder"
GATED: dict[str, tuple[str, ...]] = {
    "gelu": (),
    "half_glu1": ("out2",),
    "half_glu2": ("out2",),
    "full_glu": ("out1", "out2"),
}
"""Dense layers that an activation leaves in the tree."""


def from_lindermanlab(
    variables: Mapping[str, Any],
    *,
    activation: Activation,
    pooling: Pooling = "mean",
    clip_eigs: bool = False,
    retrieval: bool = False,
    prenorm: bool = True,
    discretization: Discretization = "zoh",
    conj_sym: bool = True,
    step_rescale: float = 1.0,
    regression: bool = False,
    bn_momentum: float = 0.95,
    dropout: float = 0.0,
    gelu: Gelu = "gelu",
    gate: Gate = "sigmoid",
) -> S5Model:
    """The `S5Model` that computes what the original model with these variables computes.

    variables: flax's nested dict; a whole training state's other entries are ignored.
    activation to step_rescale: as in training (pooling is called `mode` there).
    retrieval: the tree is one of the model for pairs of documents, whose decoder has two layers.
    regression: the decoder is applied at every step, without pooling; its tree looks like a classification's.
    bn_momentum, dropout: matter for further training only.
    gelu, gate: Q-S5's qGELU and hard sigmoid.

    `model(x, lengths)` gives logits; the original gives their log-softmax. Fields of the configuration that
    only matter for a fresh initialisation (J, c_init, dt_min, dt_max) keep their defaults.

    Raises ValueError, with every difference found, when the tree does not belong to such a model.
    """
    _check_choices(
        activation=(activation, Activation),
        pooling=(pooling, Pooling),
        discretization=(discretization, Discretization),
        gelu=(gelu, Gelu),
        gate=(gate, Gate),
    )
    leaves = _leaves(variables)
    config = ModelConfig(
        **_sizes(leaves, conj_sym=conj_sym),
        **_operators(leaves),
        activation=activation,
        head=_head(leaves, retrieval=retrieval, regression=regression),
        pooling=pooling,
        prenorm=prenorm,
        clip_eigs=clip_eigs,
        discretization=discretization,
        conj_sym=conj_sym,
        step_rescale=step_rescale,
        bn_momentum=bn_momentum,
        dropout=dropout,
        gelu=gelu,
        gate=gate,
    )
    _check_activation(leaves, activation)
    _check_tree(leaves, _shapes(config, C_names=_C_names(leaves)))
    return _model(leaves, config)


def _check_choices(**choices: tuple[str, Any]) -> None:
    for name, (value, allowed) in choices.items():
        if value not in get_args(allowed):
            raise ValueError(f"{name}: expected one of {', '.join(get_args(allowed))}, got {value!r}")


def _leaves(variables: Mapping[str, Any]) -> Leaves:
    """Arrays by path, such as `params/encoder/layers_0/seq/B`; those below `params` and `batch_stats`."""
    if not isinstance(variables, Mapping) or not isinstance(variables.get("params"), Mapping):
        got = list(variables) if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(
            f'expected a nested dict with the key "params", got {got}; '
            'wrap bare parameters as {"params": parameters}'
        )
    kept = {name: variables[name] for name in ("params", "batch_stats") if variables.get(name) is not None}
    return {path: _real(path, leaf) for path, leaf in _walk(kept, "")}


def _walk(tree: Mapping[str, Any], path: str) -> Iterator[tuple[str, object]]:
    for name, child in tree.items():
        if isinstance(child, Mapping):
            yield from _walk(child, f"{path}{name}/")
        else:
            yield f"{path}{name}", child


def _real(path: str, leaf: object) -> np.ndarray:
    array = np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{path}: expected an array of real floating-point numbers, got type {array.dtype}")
    return array


def _shape(leaves: Leaves, path: str, *, axes: str) -> tuple[int, ...]:
    """Shape of one array, which has the named axes."""
    if path not in leaves:
        raise ValueError(
            f"expected an array {axes} at {path}, got a tree with {_some(leaves)}; "
            "pass the variables of a classification, regression or retrieval model, not of a part of one"
        )
    shape = leaves[path].shape
    if len(shape) != axes.count(",") + 1:
        raise ValueError(f"{path}: expected shape {axes}, got {shape}")
    return shape


def _some(names: Mapping[str, Any]) -> str:
    """The first few names, for a message."""
    listed = sorted(names)
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "") or "no arrays"


def _sizes(leaves: Leaves, *, conj_sym: bool) -> dict[str, Any]:
    """d_in, d_out, H, P and the number of layers."""
    d_in, H = _shape(leaves, f"{ENCODER}/kernel", axes="(d_in, H)")
    _, d_out = _shape(leaves, f"{_last_dense(leaves)}/kernel", axes="(H, d_out)")
    M = _modes(leaves)
    found = [re.match(r"params/encoder/layers_(\d+)/", path) for path in leaves]
    indices = {int(m.group(1)) for m in found if m}
    return {"d_in": d_in, "d_out": d_out, "H": H, "P": 2 * M if conj_sym else M, "layers": len(indices)}


def _modes(leaves: Leaves) -> int:
    return _shape(leaves, _ssm("Lambda_re"), axes="(modes)")[0]


def _ssm(name: str, layer: int = 0) -> str:
    return f"params/encoder/layers_{layer}/seq/{name}"


def _operators(leaves: Leaves) -> dict[str, Any]:
    """Norm and direction."""
    return {
        "norm": "batch" if any(path.startswith("batch_stats/") for path in leaves) else "layer",
        "norm_bias": "params/encoder/layers_0/norm/bias" in leaves,
        "bidirectional": _bidirectional(leaves),
    }


def _C_names(leaves: Leaves) -> tuple[str, ...]:
    """C of both directions in two arrays, or in one (`complex_normal`); C of one direction in one."""
    return ("C",) if _ssm("C") in leaves else ("C1", "C2")


def _bidirectional(leaves: Leaves) -> bool:
    if _C_names(leaves) == ("C1", "C2"):
        return True
    _, columns, _ = _shape(leaves, _ssm("C"), axes="(H, modes, 2)")
    return columns == 2 * _modes(leaves)


def _two_layers(leaves: Leaves) -> bool:
    return f"{DECODER}/layer1/kernel" in leaves


def _last_dense(leaves: Leaves) -> str:
    return f"{DECODER}/layer2" if _two_layers(leaves) else DECODER


def _head(leaves: Leaves, *, retrieval: bool, regression: bool) -> Head:
    if retrieval and regression:
        raise ValueError("expected retrieval=True or regression=True, got both; a model has one head")
    if _two_layers(leaves) != retrieval:
        layers = "one dense layer" if retrieval else "two dense layers"
        raise ValueError(
            f"got retrieval={retrieval}, but the decoder has {layers}; pass retrieval={not retrieval}"
        )
    return "retrieval" if retrieval else "regression" if regression else "classification"


def _check_activation(leaves: Leaves, activation: Activation) -> None:
    found = tuple(n for n in ("out1", "out2") if f"params/encoder/layers_0/{n}/kernel" in leaves)
    if found != GATED[activation]:
        fitting = [name for name, dense in GATED.items() if dense == found]
        raise ValueError(
            f"activation {activation!r} has the dense layers {GATED[activation] or 'none'}, the tree has "
            f"{found or 'none'}; pass {' or '.join(map(repr, fitting)) or 'the variables of a whole model'}"
        )


def _shapes(c: ModelConfig, *, C_names: tuple[str, ...]) -> Shapes:
    """Every array that a model with this configuration has, by path."""
    shapes = _dense_shapes(ENCODER, c.d_in, c.H)
    for i in range(c.layers):
        shapes |= _layer_shapes(c, i, C_names=C_names)
    if c.head == "retrieval":
        shapes |= _dense_shapes(f"{DECODER}/layer1", 4 * c.H, c.H)
        return shapes | _dense_shapes(f"{DECODER}/layer2", c.H, c.d_out)
    return shapes | _dense_shapes(DECODER, c.H, c.d_out)


def _dense_shapes(path: str, inputs: int, outputs: int) -> Shapes:
    return {f"{path}/kernel": (inputs, outputs), f"{path}/bias": (outputs,)}


def _layer_shapes(c: ModelConfig, i: int, *, C_names: tuple[str, ...]) -> Shapes:
    path = f"encoder/layers_{i}"
    shapes: Shapes = {_ssm(name, i): s for name, s in _ssm_shapes(c, C_names=C_names).items()}
    for name in GATED[c.activation]:
        shapes |= _dense_shapes(f"params/{path}/{name}", c.H, c.H)
    norm = ["params/{}/norm/scale"] + ["params/{}/norm/bias"] * c.norm_bias
    if c.norm == "batch":
        norm += ["batch_stats/{}/norm/mean", "batch_stats/{}/norm/var"]
    return shapes | {name.format(path): (c.H,) for name in norm}


def _ssm_shapes(c: ModelConfig, *, C_names: tuple[str, ...]) -> Shapes:
    """Real and imaginary part are the last axis; `C` alone holds both directions side by side."""
    M, columns = c.modes, c.modes * (2 if c.bidirectional else 1) // len(C_names)
    shapes: Shapes = {"Lambda_re": (M,), "Lambda_im": (M,), "log_step": (M, 1), "B": (M, c.H, 2), "D": (c.H,)}
    return shapes | {name: (c.H, columns, 2) for name in C_names}


def _check_tree(leaves: Leaves, shapes: Shapes) -> None:
    """Raises ValueError with all differences between the arrays that are there and those that should be."""
    problems = [f"{path}: missing, expected shape {shapes[path]}" for path in shapes if path not in leaves]
    problems += [f"{path}: unexpected, shape {leaves[path].shape}" for path in leaves if path not in shapes]
    problems += [
        f"{path}: expected shape {shape}, got {leaves[path].shape}"
        for path, shape in shapes.items()
        if path in leaves and leaves[path].shape != shape
    ]
    if problems:
        raise ValueError(
            "the variables are not those of one S5 model with the options given; check the options "
            "(activation, conj_sym) against those of the training run:\n  " + "\n  ".join(problems)
        )


def _model(leaves: Leaves, c: ModelConfig) -> S5Model:
    return S5Model(
        encoder=_dense(leaves, ENCODER),
        layers=tuple(_layer(leaves, c, i) for i in range(c.layers)),
        hidden=_dense(leaves, f"{DECODER}/layer1") if c.head == "retrieval" else None,
        decoder=_dense(leaves, _last_dense(leaves)),
        config=c,
    )


def _float32(array: np.ndarray) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


def _dense(leaves: Leaves, path: str) -> Dense:
    return Dense(_float32(leaves[f"{path}/kernel"]), _float32(leaves[f"{path}/bias"]))


def _layer(leaves: Leaves, c: ModelConfig, i: int) -> Layer:
    path = f"params/encoder/layers_{i}"
    gated = {name: _dense(leaves, f"{path}/{name}") for name in GATED[c.activation]}
    return Layer(_norm(leaves, i), _ssm_parameters(leaves, i), gated.get("out1"), gated.get("out2"))


def _norm(leaves: Leaves, i: int) -> Norm:
    def take(kind: str, name: str) -> jax.Array | None:
        leaf = leaves.get(f"{kind}/encoder/layers_{i}/norm/{name}")
        return None if leaf is None else _float32(leaf)

    scale = _float32(leaves[f"params/encoder/layers_{i}/norm/scale"])
    return Norm(scale, take("params", "bias"), take("batch_stats", "mean"), take("batch_stats", "var"))


def _ssm_parameters(leaves: Leaves, i: int) -> SSM:
    def take(name: str) -> np.ndarray:
        return leaves[_ssm(name, i)]

    B, C = take("B"), np.concatenate([take(name) for name in _C_names(leaves)], axis=1)
    return SSM(
        Lambda_re=_float32(take("Lambda_re")),
        Lambda_im=_float32(take("Lambda_im")),
        B_re=_float32(B[..., 0]),
        B_im=_float32(B[..., 1]),
        C_re=_float32(C[..., 0]),
        C_im=_float32(C[..., 1]),
        D=_float32(take("D")),
        log_step=_float32(take("log_step")[:, 0]),
    )
