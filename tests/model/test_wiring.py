"""The operations of a network, against its list of sites."""

from typing import Any

import pytest
from tests.support import small_config

from qs5.model.sites import sites_of
from qs5.model.wiring import wiring_of


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bidirectional": True, "activation": "full_glu"},
        {"head": "retrieval", "prenorm": False, "layers": 1},
    ],
)
def test_operations_write_every_activation_site_once_and_read_what_was_written(changes: dict[str, Any]):
    config = small_config(**changes)
    operations = wiring_of(config)
    written = [op.site for op in operations]
    # The copy of the state that C reads is a format, not an operation.
    assert written == [s.name for s in sites_of(config) if not (s.is_weight or s.name.endswith("_out"))]
    for i, op in enumerate(operations):
        assert set(op.reads) <= set(written[:i])
        assert op.reads or op.site == "input"


def test_connections_of_a_layer():
    reads = {op.site: op.reads for op in wiring_of(small_config(layers=1, activation="half_glu2"))}
    assert reads["layers.0.ssm.y"] == ("layers.0.ssm.state", "layers.0.norm")
    assert reads["layers.0.product"] == ("layers.0.ssm.y", "layers.0.sigmoid")
    assert reads["layers.0.residual"] == ("encoder", "layers.0.product")
