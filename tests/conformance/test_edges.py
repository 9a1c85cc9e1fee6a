"""Models made for one edge each, in every engine: what random models do not meet."""

import numpy as np
import pytest
from tests.conformance.engines import assert_engines_agree
from tests.integer.small import affine, array, dense, output, recurrence, regression, signal

from qs5.backends import reference
from qs5.integer.checks import DIRECT_LIMIT
from qs5.integer.model import IntegerModel


def direct_term(D: int, D_shift: int) -> IntegerModel:
    """y = (requantize(u D, 2^14, D_shift), limited, + C x) / 1024 in 16 bits, for codes u of 16 bits."""
    u, one = signal("input", 2, 16), {"dtype": "int16"}
    read = output(
        "state",
        "input",
        signal("y", 2, 16),
        [[1, 0], [0, 1]],
        D=array([D, -D], "int8"),
        D_M=array([2**14] * 2, **one),
        D_shift=array([D_shift] * 2, "uint8"),
        M=array([2**14] * 2, **one),
        shift=array([24] * 2, "uint8"),
    )
    return regression([recurrence("input", signal("state", 2, 16)), read], u)


@pytest.mark.parametrize("D_shift", [1, 11])
def test_the_direct_term_is_limited(D_shift: int) -> None:
    """D u may pass 2^24 by far, which joins C x as 2^24 and no more."""
    model = direct_term(127, D_shift)
    u = np.array([[0, 0], [32767, 32767], [-32767, 12345], [1, -1], [1032, 1033], [1040, -1041]])
    unlimited = (u * np.array([127, -127]) * 2**14 + 2 ** (D_shift - 1)) >> D_shift
    assert np.any(unlimited > DIRECT_LIMIT) and np.any(unlimited < -DIRECT_LIMIT)
    state = reference.run(model, u[None])["state"][0]
    limited = np.clip(unlimited, -DIRECT_LIMIT, DIRECT_LIMIT)
    expected = np.clip((state + limited + 2**9) >> 10, -32767, 32767)
    np.testing.assert_array_equal(reference.logits(model, u[None])[0], expected)
    assert np.all(np.abs(expected) < 32767)  # or the output's own saturation would hide it
    assert_engines_agree(model, u[None], None, expected[None])


@pytest.mark.parametrize("wide", ["forward", "backward"])
def test_two_directions_of_different_widths(wide: str) -> None:
    """The states of one direction have 8 bits, those of the other 16: C meets both as they are."""
    bits = {"forward": (16, 8), "backward": (8, 16)}[wide]
    model = regression(
        [
            affine("input", signal("a", 2, bits[0]), M=2**10, shift=6),
            affine("input", signal("b", 2, bits[1]), M=2**10, shift=6),
            recurrence("a", signal("f", 2, bits[0])),
            recurrence("b", signal("r", 2, bits[1]), reverse=True),
            dense("input", signal("u", 1), [[1, 1]]),
            output("f", "u", signal("y", 1, 16), [[1, 2, 3, 4]], x_reverse="r", shift=array([14], "uint8")),
        ],
        signal("input", 2),
    )
    raw = np.random.default_rng(0).integers(-127, 128, (2, 9, 2))
    env = reference.run(model, raw)
    assert max(np.abs(env["f"]).max(), np.abs(env["r"]).max()) > 255  # no byte holds it
    expected = reference.logits(model, raw)
    assert len(np.unique(expected)) > 9
    assert_engines_agree(model, raw, None, expected)
