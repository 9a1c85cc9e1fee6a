"""Parameter groups and the optimiser: Adam for the SSM, AdamW for the rest."""

from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import optax

from qs5.model.files import dotted
from qs5.model.network import S5Model, trainable
from qs5.training.options import OptConfig, TrainOptions
from qs5.training.schedule import warmup_cosine

_SSM_GROUP: dict[OptConfig, dict[str, str]] = {
    "standard": {"B": "ssm", "C": "regular", "D": "regular"},
    "BfastandCdecay": {"B": "regular", "C": "regular", "D": "regular"},
    "BandCdecay": {"B": "ssm_decay", "C": "regular", "D": "regular"},
    "noBCdecay": {"B": "ssm", "C": "ssm", "D": "ssm"},
}
"""Which group B, C and D belong to; Lambda and log_step are always "ssm" (but see `dt_global`)."""


def group_of(name: str, options: TrainOptions) -> str:
    """The group of a parameter by its dotted name.

    ssm: Adam at ssm_lr, no decay.  ssm_decay: AdamW at ssm_lr.  regular: AdamW at lr.  frozen: not trained.
    Norms belong to "ssm", as the official configuration intends; with `official_quirks` they are
    "regular", as its code does (the entry for norms there matches no parameter).
    """
    if ".norm." in name:
        return "regular" if options.official_quirks else "ssm"
    if ".ssm." not in name:
        return "regular"
    leaf = name.rsplit(".", 1)[1]
    if options.freeze_eigenvalues and (leaf == "log_step" or leaf.startswith("Lambda")):
        return "frozen"
    if leaf == "log_step":
        return "regular" if options.dt_global else "ssm"
    return _SSM_GROUP[options.opt_config].get(leaf[0], "ssm")


def groups(model: S5Model, options: TrainOptions) -> Any:
    """The tree of group names of a model's trained parameters."""

    def label(path: tuple[Any, ...], _: jax.Array) -> str:
        return group_of(dotted(path), options)

    return jax.tree_util.tree_map_with_path(label, eqx.filter(model, trainable(model)))


def make_optimizer(
    model: S5Model, options: TrainOptions, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Clip (before Adam, so the limit means what it says), then one Adam a group, each on its schedule."""

    def schedule(peak: float) -> Any:
        return warmup_cosine(
            peak=peak,
            low=options.lr_min,
            warmup_steps=round(options.warmup_epochs * steps_per_epoch),
            total_steps=options.epochs * steps_per_epoch,
            official_quirks=options.official_quirks,
        )

    adams: dict[Hashable, optax.GradientTransformation] = {
        "ssm": optax.adam(schedule(options.ssm_lr)),
        "ssm_decay": optax.adamw(schedule(options.ssm_lr), weight_decay=options.weight_decay),
        "regular": optax.adamw(schedule(options.lr), weight_decay=options.weight_decay),
        "frozen": optax.set_to_zero(),
    }
    labels = groups(model, options)
    # The tree of labels is an S5Model, hence callable: without the lambda optax would call it.
    update = optax.multi_transform(adams, lambda _: labels)
    if options.clip_norm is None:
        return update
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), update)
