"""Models put together from ops of uniform models are those that lowering gives, and cost what the cost model says."""

import dataclasses
import time

import numpy as np
import pytest

from qs5.integer.file import to_bytes
from qs5.search.costs import CostModel, cost_of, narrowed
from qs5.search.space import groups_of, reference, weight_sites, widths_of
from qs5.search.workshop import Workshop


def test_time(workshop):
    t=time.time()
    c=reference(workshop.config,"polar",groups_of(workshop.config,"bytes"))
    workshop.lowered(c); print(time.time()-t)
    t=time.time(); workshop.assembled(c); print(time.time()-t)
    t=time.time(); workshop.assembled(c.with_weights({"encoder.weight":2})); print(time.time()-t)
