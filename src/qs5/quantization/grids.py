"""Static power-of-two grids of activations, and rounding to them."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qs5.numerics.formats import QFormat
from qs5.numerics.polar import LogScale, PolarCodes
from qs5.quantization.ste import round_half_up


@dataclass(frozen=True)
class Grid:
    """Values q 2^exponent with q an integer of `format`; one exponent, or one a channel (last axis)."""

    format: QFormat
    exponent: int | tuple[int, ...]

    @property
    def step(self) -> np.ndarray:
        """2^exponent, scalar or (channels,) float32."""
        return np.exp2(np.asarray(self.exponent, np.float32))


@dataclass(frozen=True, eq=False)
class MovingGrid:
    """A grid whose step is an argument of the compiled program, and so may change between its calls."""

    format: QFormat
    step: jax.Array
    """2^exponent, scalar or (channels,) float32."""


def step_for(grid: Grid | MovingGrid, x: jax.Array) -> np.ndarray | jax.Array:
    """The step of a grid with leading axes of length 1 to meet x."""
    step = grid.step
    return step if step.ndim == 0 else step.reshape((1,) * (x.ndim - 1) + step.shape)


def to_grid(x: jax.Array, grid: Grid | MovingGrid) -> jax.Array:
    """Nearest value of the grid, saturating; gradient 1 inside the range and 0 outside.

    Exact for x on any power-of-two grid: scaling by a power of two and rounding commute with float32.
    """
    step = step_for(grid, x)
    return _to_grid(x, jnp.asarray(step), float(grid.format.low), float(grid.format.high))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _to_grid(x: jax.Array, step: jax.Array, low: float, high: float) -> jax.Array:
    return jnp.clip(round_half_up(x * (1.0 / step)), low, high) * step


def _to_grid_forward(x: jax.Array, step: jax.Array, low: float, high: float) -> tuple[jax.Array, Any]:
    scaled = x * (1.0 / step)
    inside = (scaled >= low) & (scaled <= high)
    y = jnp.clip(round_half_up(scaled), low, high) * step
    # Written to memory once: without the barrier XLA's CPU backend recomputes the whole chain of rounded
    # tensors inside every reduction that the gradient needs, which costs ten times the step.
    return jax.lax.optimization_barrier((y, inside))


def _to_grid_backward(low: float, high: float, inside: jax.Array, g: jax.Array) -> tuple[jax.Array, None]:
    return jnp.where(inside, g, 0.0), None


_to_grid.defvjp(_to_grid_forward, _to_grid_backward)


def codes(x: jax.Array, grid: Grid | MovingGrid) -> jax.Array:
    """The integers (as float32) of values that lie on the grid."""
    return x * (1.0 / step_for(grid, x))


@dataclass(frozen=True)
class GridPlan:
    """The grid of every activation site that has one, with where the ranges came from. Hashable.

    Sites that are float are absent.
    """

    grids: tuple[tuple[str, Grid], ...]
    data: str
    """Identity (SHA-256) of the calibration data."""
    examples: int
    eigenvalues: tuple[tuple[str, PolarCodes], ...] = ()
    """Lambda-bar by its weight site, where the spec codes it in polar form; the parameters do not move it."""

    @property
    def formats(self) -> "GridPlan":
        """The plan without its numbers: every exponent 0, no eigenvalues. Equal for plans that a compiled program can
        take one after the other (`static.movable`)."""
        grids = tuple((name, dataclasses.replace(grid, exponent=0)) for name, grid in self.grids)
        return dataclasses.replace(self, grids=grids, eigenvalues=())

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
        polar = {name: dataclasses.asdict(codes) for name, codes in self.eigenvalues}
        coded = {"eigenvalues": polar} if polar else {}
        return {"data": self.data, "examples": self.examples, "grids": table, **coded}


def plan_from_json(table: dict[str, Any]) -> GridPlan:
    """The inverse of `GridPlan.to_json`."""
    return GridPlan(
        grids=tuple((name, _grid_from_json(g)) for name, g in table["grids"].items()),
        data=table["data"],
        examples=table["examples"],
        eigenvalues=tuple((name, _polar_from_json(t)) for name, t in table.get("eigenvalues", {}).items()),
    )


def _polar_from_json(table: dict[str, Any]) -> PolarCodes:
    return PolarCodes(
        decay_scale=LogScale(**table["decay_scale"]),
        angle_scale=LogScale(**table["angle_scale"]),
        decays=tuple(table["decays"]),
        angles=tuple(table["angles"]),
    )


def _grid_from_json(table: dict[str, Any]) -> Grid:
    exponent = table["exponent"]
    return Grid(
        QFormat(table["bits"], table["signed"]),
        tuple(exponent) if isinstance(exponent, Iterable) else exponent,
    )
