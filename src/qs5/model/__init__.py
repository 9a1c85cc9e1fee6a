"""The S5 model: HiPPO initialisation, discretization, recurrence, layers, network, named sites."""

from qs5.model.arithmetic import (
    Arithmetic as Arithmetic,
    FloatArithmetic as FloatArithmetic,
    Signal as Signal,
)
from qs5.model.config import ModelConfig as ModelConfig
from qs5.model.network import S5Model as S5Model, forward as forward
from qs5.model.sites import Site as Site, sites_of as sites_of
