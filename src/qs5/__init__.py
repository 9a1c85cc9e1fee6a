"""qs5: S5 state-space models that really run on integers.

The public API, by name. Names are imported when first used, so that `import qs5` loads neither JAX nor NumPy.

| step         | names                                                                                |
|--------------|--------------------------------------------------------------------------------------|
| data         | `load_task`, `Task`, `Split`, `Encoding`                                              |
| model        | `ModelConfig`, `S5Model`, `init_model`, `forward`, `sites_of`, `load_model`, `save_model` |
| quantization | `QuantSpec`, `spec_of`, `PRESETS`, `prepared`, `calibrate`, `plan_of`, `arithmetic_for_spec` |
| training     | `Recipe`, `load_recipe`, `TrainOptions`, `train`, `ptq`, `qaft`, `qat`, `evaluate`    |
| other code   | `from_lindermanlab`                                                                   |
| mistakes     | `UserError`                                                                           |
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "load_task": ("qs5.tasks", "load"),
    "Task": ("qs5.tasks", "Task"),
    "Split": ("qs5.tasks", "Split"),
    "Encoding": ("qs5.tasks", "Encoding"),
    "ModelConfig": ("qs5.model.config", "ModelConfig"),
    "S5Model": ("qs5.model.network", "S5Model"),
    "init_model": ("qs5.model.network", "init_model"),
    "forward": ("qs5.model.network", "forward"),
    "sites_of": ("qs5.model.sites", "sites_of"),
    "load_model": ("qs5.model.files", "load_model"),
    "save_model": ("qs5.model.files", "save_model"),
    "QuantSpec": ("qs5.quantization.spec", "QuantSpec"),
    "spec_of": ("qs5.quantization.spec", "spec_of"),
    "PRESETS": ("qs5.quantization.spec", "PRESETS"),
    "calibrate": ("qs5.quantization.calibration", "calibrate"),
    "plan_of": ("qs5.quantization.build", "plan_of"),
    "prepared": ("qs5.quantization.build", "prepared"),
    "arithmetic_for_spec": ("qs5.quantization.build", "arithmetic_for_spec"),
    "Recipe": ("qs5.training.recipe", "Recipe"),
    "load_recipe": ("qs5.training.recipe", "load_recipe"),
    "TrainOptions": ("qs5.training.options", "TrainOptions"),
    "train": ("qs5.training.methods", "train"),
    "ptq": ("qs5.training.methods", "ptq"),
    "qaft": ("qs5.training.methods", "qaft"),
    "qat": ("qs5.training.methods", "qat"),
    "evaluate": ("qs5.training.evaluate", "evaluate"),
    "from_lindermanlab": ("qs5.interop.lindermanlab", "from_lindermanlab"),
    "UserError": ("qs5.errors", "UserError"),
}

if TYPE_CHECKING:
    from qs5.errors import UserError as UserError
    from qs5.interop.lindermanlab import from_lindermanlab as from_lindermanlab
    from qs5.model.config import ModelConfig as ModelConfig
    from qs5.model.files import load_model as load_model, save_model as save_model
    from qs5.model.network import S5Model as S5Model, forward as forward, init_model as init_model
    from qs5.model.sites import sites_of as sites_of
    from qs5.quantization.build import (
        arithmetic_for_spec as arithmetic_for_spec,
        plan_of as plan_of,
        prepared as prepared,
    )
    from qs5.quantization.calibration import calibrate as calibrate
    from qs5.quantization.spec import PRESETS as PRESETS, QuantSpec as QuantSpec, spec_of as spec_of
    from qs5.tasks import Encoding as Encoding, Split as Split, Task as Task, load as load_task  # noqa: F401
    from qs5.training.evaluate import evaluate as evaluate
    from qs5.training.methods import ptq as ptq, qaft as qaft, qat as qat, train as train
    from qs5.training.options import TrainOptions as TrainOptions
    from qs5.training.recipe import Recipe as Recipe, load_recipe as load_recipe


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qs5' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(_HOME)
