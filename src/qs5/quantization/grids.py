"""Static power-of-two grids of activations, and rounding to them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qs5.numerics.formats import QFormat
from qs5.quantization.ste import replace_value, round_half_up


@dataclass(frozen=True)
class Grid:
    """Values q 2^exponent with q an integer of `format`; one exponent, or one a channel (last axis)."""

    format: QFormat
    exponent: int | tuple[int, ...]

    @property
    def step(self) -> np.ndarray:
        """2^exponent, scalar or (channels,) float32."""
        return np.exp2(np.asarray(self.exponent, np.float32))

    def step_for(self, x: Any) -> np.ndarray:
        """`step` with leading axes of length 1 to meet x."""
        step = self.step
        return step if step.ndim == 0 else step.reshape((1,) * (x.ndim - 1) + step.shape)


def to_grid(x: jax.Array, grid: Grid) -> jax.Array:
    """Nearest value of the grid, saturating; gradient 1 inside the range and 0 outside.

    Exact for x on any power-of-two grid: scaling by a power of two and rounding commute with float32.
    """
    step = grid.step_for(x)
    scaled = x * (1.0 / step)
    inside = jnp.clip(scaled, grid.format.low, grid.format.high)
    return replace_value(inside, round_half_up(inside)) * step


def codes(x: jax.Array, grid: Grid) -> jax.Array:
    """The integers (as float32) of values that lie on the grid."""
    return x * (1.0 / grid.step_for(x))


@dataclass(frozen=True)
class GridPlan:
    """The grid of every activation site that has one, with where the ranges came from. Hashable.

    Sites that are float are absent.
    """

    grids: tuple[tuple[str, Grid], ...]
    data: str
    """Identity (SHA-256) of the calibration data."""
    examples: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        table = {
            name: {
                "bits": g.format.bits,
                "signed": g.format.signed,
                "exponent": np.asarray(g.exponent).tolist(),
            }
            for name, g in self.grids
        }
        return {"data": self.data, "examples": self.examples, "grids": table}


def plan_from_json(table: dict[str, Any]) -> GridPlan:
    """The inverse of `GridPlan.to_json`."""
    return GridPlan(
        grids=tuple((name, _grid_from_json(g)) for name, g in table["grids"].items()),
        data=table["data"],
        examples=table["examples"],
    )


def _grid_from_json(table: dict[str, Any]) -> Grid:
    exponent = table["exponent"]
    return Grid(
        QFormat(table["bits"], table["signed"]),
        tuple(exponent) if isinstance(exponent, Iterable) else exponent,
    )
