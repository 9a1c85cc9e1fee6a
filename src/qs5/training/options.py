"""How to train: optimiser, schedule, batches, stopping rule."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from qs5.errors import UserError
from qs5.model.config import field_problems

OptConfig = Literal["standard", "BfastandCdecay", "BandCdecay", "noBCdecay"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Hyper-parameters of one training run.

    The step size of Adam is `ssm_lr` for the SSM's own parameters and `lr` for the others; see
    `qs5.training.optimizer` for who is in which group. Source: Q-S5 run scripts, lindermanlab/S5.
    """

    epochs: int = 10
    batch_size: int = 50
    ssm_lr: float = 4e-3
    lr: float = 1.6e-2
    lr_min: float = 0.0
    weight_decay: float = 0.01
    warmup_epochs: float = 1.0
    opt_config: OptConfig = "standard"
    dt_global: bool = False
    """Move log_step to the regular group."""
    clip_norm: float | None = None
    """Clip the global norm of the gradient, before Adam."""
    official_quirks: bool = False
    """As lindermanlab/S5: the cosine counts warm-up steps too, and norms are decayed at the regular rate."""
    patience: int | None = None
    """Stop after this many epochs without a better validation metric."""
    freeze_statistics: bool = False
    """Batch norm uses its running statistics in training (fine-tuning of a folded norm)."""
    freeze_eigenvalues: bool = False
    """Lambda and log_step stay as they are (fine-tuning around eigenvalues that are codes already)."""
    distill: float = 0.0
    """Weight of the divergence from the float network's logits in the loss (fine-tuning only)."""
    distill_layers: float = 0.0
    """Weight of the relative error of the residual streams against the float network's (fine-tuning only)."""
    remat: bool = False
    """Store less for the gradient and compute the inside of every layer twice: for sequences that do not fit."""
    eval_batch_size: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if problems := field_problems(self):
            raise UserError("training options: " + "; ".join(problems))
        for name in ("epochs", "batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"training options: expected {name} >= 1, got {getattr(self, name)}")
        for name in ("seed", "ssm_lr", "lr", "lr_min", "weight_decay", "distill", "distill_layers"):
            if not getattr(self, name) >= 0:
                raise UserError(f"training options: expected {name} >= 0, got {getattr(self, name)}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(
                "training options: expected 0 <= warmup_epochs <= epochs, got "
                f"{self.warmup_epochs}, {self.epochs}"
            )

    def replace(self, **changes: object) -> "TrainOptions":
        """A copy with some fields changed (checked again)."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
