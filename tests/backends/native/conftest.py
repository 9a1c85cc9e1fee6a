"""Tests of the native engine. Without the extension they are skipped, and say so."""

import pytest

from qs5.backends import native


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the extension."""
    if native.available():
        return
    skip = pytest.mark.skip(reason="the extension qs5._native was not built, or QS5_NATIVE=0")
    for item in items:
        if "backends/native" in str(item.path) and "without_extension" not in item.name:
            item.add_marker(skip)
