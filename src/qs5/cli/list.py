"""`qs5 list`: what there is to choose from."""

from qs5 import tasks, zoo
from qs5.cli import common
from qs5.errors import UserError
from qs5.quantization.spec import PRESETS, spec_of
from qs5.reports.tables import terminal
from qs5.training.recipe import load_recipe, recipe_names


def run(argv: list[str]) -> int:
    """Print recipes with their task, presets with their widths, zoo models."""
    if argv and argv[0] not in ("-h", "--help"):
        raise UserError(f"qs5 list takes no arguments, got {' '.join(argv)}")
    recipes = [(name, load_recipe(name).task, _sizes(name)) for name in recipe_names()]
    common.console.print(f"tasks: {', '.join(tasks.names())}")
    common.console.print(terminal("recipes (qs5 train NAME)", ("recipe", "task", "model"), recipes))
    presets = [(name, spec_of(name).widths()) for name in PRESETS]
    common.console.print(terminal("quantization presets (--spec NAME)", ("preset", "bits"), presets))
    common.console.print(f"zoo, runs: {', '.join(zoo.names()) or 'none'}")
    common.console.print(f"zoo, integer models: {', '.join(zoo.integer_names()) or 'none'}")
    return 0


def _sizes(name: str) -> str:
    m = load_recipe(name).model
    return f"{m.layers} layers, H={m.H}, P={m.P}, {m.norm} norm, {m.activation}"
