"""How many multiply-adds the products of a training step have."""

from qs5.model.config import ModelConfig


def multiply_adds(c: ModelConfig, *, batch: int, length: int) -> int:
    """Of the products of one step, forward and backward, on `batch` sequences of `length` steps (classification).

    A product y = x W is done three times: y itself, dx = dy W' and dW = x' dy, each of the same size. The encoder's
    input needs no gradient. With S = 2M packed states, d directions (1 or 2) and D_in, D_out channels:

        N = batch length                                     tokens
        encoder    2 N D_in H                                no dx
        B          3 N H S       a layer                     both directions share B u
        C          3 N d S H     a layer
        D          3 N H         a layer                     element by element
        gate       3 N G H^2     a layer                     G: dense layers of the activation, half GLU 1
        decoder    3 batch H D_out                           after the pool

    The recurrence, norms, activations and the optimizer are not counted: they are what a step at the peak of its
    products would do for nothing.
    """
    if c.head != "classification":
        raise ValueError(f"expected a classification head, got {c.head}")
    S, directions = 2 * c.modes, 2 if c.bidirectional else 1
    dense = {"gelu": 0, "full_glu": 2}.get(c.activation, 1)
    layer = c.H * S + directions * S * c.H + c.H + dense * c.H * c.H
    tokens = batch * length
    return tokens * (2 * c.d_in * c.H + 3 * c.layers * layer) + 3 * batch * c.H * c.d_out
