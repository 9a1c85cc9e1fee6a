"""The study of forms: every coder comes near with many bits, and the error is that of the impulse responses."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.recurrence_forms.__main__ import _figure
from benchmarks.recurrence_forms.forms import FORMS, polar, response_error, rotation


def _eigenvalues(M: int, seed: int = 0) -> np.ndarray:
    """Decays over two decades, angles on both sides, one beyond a quarter turn."""
    rng = np.random.default_rng(seed)
    angle = np.append(rng.uniform(-1.5, 1.5, M - 1), 2.5)
    return np.exp(-(10 ** rng.uniform(-2.5, -1, M)) + 1j * angle)


def test_error_is_that_of_the_impulse_responses() -> None:
    z = _eigenvalues(6)
    other, weight = z * 0.99 * np.exp(0.01j), np.arange(1.0, 7.0)
    k = np.arange(20_000)[:, None]
    own, off = z[None, :] ** k, other[None, :] ** k
    energy = [np.sum(weight * np.sum(np.abs(r) ** 2, axis=0)) for r in (own - off, own)]
    assert response_error(z, other, weight) == pytest.approx(np.sqrt(energy[0] / energy[1]), rel=1e-6)


def test_an_unstable_mode_has_no_error() -> None:
    z = _eigenvalues(3)
    assert response_error(z, np.array([1.0, 0.5, 0.5]), np.ones(3)) == float("inf")


@pytest.mark.parametrize("name", [name for name in FORMS if name != "codebook"])
def test_many_bits_come_near(name: str) -> None:
    """16 bits (8 where there are no more) are nearly exact, the narrowest code measured is not."""
    form, widths = FORMS[name]
    z = _eigenvalues(64)
    many = 8 if name == "polar" else 16
    errors = [response_error(z, form(z, n)[0], np.ones(64)) for n in (many, min(widths))]
    assert errors[0] < 0.05 < errors[1]


def test_a_codebook_of_all_modes_is_exact() -> None:
    z = _eigenvalues(16)
    form, _ = FORMS["codebook"]
    decoded, bits = form(z, 4)
    assert bits == 4
    np.testing.assert_allclose(decoded, z, rtol=1e-9)


def test_shears_rotate_by_their_angle() -> None:
    z = np.array([0.9 * np.exp(0.3j), 0.8 * np.exp(-2.0j)])
    decoded, _ = rotation(z, 24)
    np.testing.assert_allclose(decoded, z, rtol=1e-5)


def test_polar_undoes_order_and_conjugation() -> None:
    z = _eigenvalues(64)
    decoded, bits = polar(z, 8)
    assert bits == 16
    assert np.max(np.abs(decoded - z) / -np.log(np.abs(z))) < 0.5


def _record(form: str, bits: float, value: float) -> dict:
    return {"value": value, "extra": {"model": "m", "form": form, "bits_a_mode": bits}}


def test_the_figure_is_written_whole_with_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [_record("float", 0, 0.99), _record("polar", 16, 0.5), _record("polar", 8, 0.25)]
    _figure(records, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"recurrence_forms.{kind}" for kind in ("svg", "png", "csv")
    }
    header, *rows = (tmp_path / "recurrence_forms.csv").read_text().splitlines()
    assert header == "model,form,stored_bits_a_mode,accuracy_percent"
    assert rows == ["m,polar,8,25.0", "m,polar,16,50.0"]
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def torn(_: object, target: object, **options: object) -> None:
        if isinstance(target, str | Path):
            Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", torn)
    with pytest.raises(KeyboardInterrupt):
        _figure(records[:1], tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
