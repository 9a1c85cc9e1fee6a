"""The modes of an SSM may be written in any order, and each as its complex conjugate: the same function of the input.

    y = 2 Re(sum_p C_p x_p) = 2 Re(sum_p conj(C_p) conj(x_p))

`ordered` uses this freedom to sort the eigenvalues by angle, 0 to half a turn, as polar codes want them.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from qs5.errors import UserError
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model
from qs5.model.ssm import SSM, discrete


def ordered(model: S5Model) -> S5Model:
    """The same network with the modes of every layer conjugated to angles 0 .. pi and sorted by them.

    Raises UserError where conjugates are parameters of their own (conj_sym = false).
    """
    if not model.config.conj_sym:
        raise UserError(
            "form=polar: expected a model that leaves conjugate modes out (conj_sym = true), got one with both; "
            "use form=linear"
        )
    layers = [
        eqx.tree_at(lambda layer: layer.ssm, layer, _ordered(model, layer.ssm)) for layer in model.layers
    ]
    return eqx.tree_at(lambda m: m.layers, model, type(model.layers)(layers))


def eigenvalues(ssm: SSM, config: ModelConfig) -> np.ndarray:
    """Lambda-bar (M,) complex128."""
    Lambda_bar, _ = discrete(ssm, config)
    return np.asarray(Lambda_bar.re, np.float64) + 1j * np.asarray(Lambda_bar.im, np.float64)


def _ordered(model: S5Model, ssm: SSM) -> SSM:
    angle = np.angle(eigenvalues(ssm, model.config))
    order = np.argsort(np.abs(angle), kind="stable")
    sign = jnp.asarray(np.where(angle < 0, -1.0, 1.0)[order], jnp.float32)
    columns = np.concatenate([order + i * len(order) for i in range(ssm.C_re.shape[1] // len(order))])
    column_sign = jnp.tile(sign, len(columns) // len(order))
    return SSM(
        Lambda_re=ssm.Lambda_re[order],
        Lambda_im=ssm.Lambda_im[order] * sign,
        B_re=ssm.B_re[order],
        B_im=ssm.B_im[order] * sign[:, None],
        C_re=ssm.C_re[:, columns],
        C_im=ssm.C_im[:, columns] * column_sign[None, :],
        D=ssm.D,
        log_step=ssm.log_step[order],
    )
