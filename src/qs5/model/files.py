"""Model files: one safetensors file, arrays by their path in the tree, the configuration as JSON metadata.

No pickle, nothing executable. Files are written beside and renamed, so a reader never sees half of one.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from qs5.errors import UserError
from qs5.files import write_beside
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, init_model

FORMAT = "qs5-float-model/1"


class ModelFileError(UserError):
    """A model file that cannot be read: one line with expected, got, what to do."""


class ModelFile(NamedTuple):
    """A model with the free-form information stored beside it (JSON values)."""

    model: S5Model
    info: dict[str, Any]


def named_arrays(model: S5Model) -> dict[str, np.ndarray]:
    """Every array of the tree by its dotted path, such as `layers.0.ssm.Lambda_re`."""
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    return {dotted(path): np.asarray(leaf) for path, leaf in leaves}


def dotted(path: tuple[Any, ...]) -> str:
    """The name of an array in the tree, such as `layers.0.ssm.Lambda_re`."""
    return ".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in path)


def save_model(path: Path, model: S5Model, *, info: Mapping[str, Any]) -> None:
    """Write model and `info` (anything JSON can hold) to `path`."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "info": json.dumps(dict(info)),
    }
    write_beside(path, save(named_arrays(model), metadata=metadata))


def load_model(path: Path) -> ModelFile:
    """Read a file of `save_model`. Raises ModelFileError when it is missing, damaged or not such a file."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            config, info = _header(path, file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelFileError(
            f"{path}: expected a qs5 model (safetensors), got {error}; train again or copy the file again"
        ) from error
    return ModelFile(_fill(path, config, arrays), info)


def _header(path: Path, metadata: dict[str, str]) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and free-form information."""
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{path}: expected format {FORMAT}, got {metadata.get('format')}; it is no qs5 float model"
        )
    try:
        return ModelConfig(**json.loads(metadata["config"])), json.loads(metadata["info"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path}: expected a configuration and information as JSON, got {error!r}; copy the file again"
        ) from error


def _fill(path: Path, config: ModelConfig, arrays: dict[str, np.ndarray]) -> S5Model:
    """The model of `config` with exactly these arrays."""
    skeleton = eqx.filter_eval_shape(init_skeleton, config)
    leaves, tree = jax.tree_util.tree_flatten_with_path(skeleton)
    names = [dotted(p) for p, _ in leaves]
    if set(names) != set(arrays):
        odd = sorted(set(names) ^ set(arrays))
        raise ModelFileError(f"{path}: arrays and configuration disagree about {', '.join(odd[:5])}")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        got = arrays[name]
        if got.shape != leaf.shape or got.dtype != leaf.dtype:
            raise ModelFileError(
                f"{path}: expected {name} of shape {leaf.shape} {leaf.dtype}, got {got.shape} {got.dtype}"
            )
    return jax.tree_util.tree_unflatten(tree, [jnp.asarray(arrays[name]) for name in names])


def init_skeleton(config: ModelConfig) -> S5Model:
    """A model of the right shapes; its numbers do not matter."""
    return init_model(jax.random.key(0), config)
