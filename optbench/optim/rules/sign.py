"""Steps of one size in every coordinate: signSGD, Signum, Lion."""

from typing import Any

from torch import Tensor

from optbench.optim.rules.base import Betas, Scalar, State, average, per_tensor, schedule_factor


@per_tensor
def signum(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    weight_decouple: bool = True,
    nesterov: bool = False,
) -> tuple[Tensor, State]:
    """Signum, Bernstein et al. (2018), algorithm 2: the sign of an averaged gradient; momentum 0 is signSGD.

    The weights shrink by lr weight_decay; `weight_decouple=False` adds weight_decay theta to the gradient. `nesterov`,
    the sign of (1 - momentum) g + momentum m, is not in the paper.
    """
    decayed = param * (1 - lr * weight_decay) if weight_decouple else param
    grad = grad if weight_decouple else grad + weight_decay * param
    m = average(state.get("m", 0.0), grad, momentum)
    direction = average(m, grad, momentum) if nesterov else m
    return decayed - lr * direction.sign(), {"m": m}


@per_tensor
def lion(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    betas: Betas,
    weight_decay: Scalar = 0.0,
    decoupled_weight_decay: bool = False,
    initial_lr: Any = None,
) -> tuple[Tensor, State]:
    """Lion, Chen et al. (2023), algorithm 2: the sign of a momentum that gives this gradient more weight than it keeps.

    c = beta1 m + (1 - beta1) g; theta <- theta - lr (sign(c) + weight_decay theta); m <- beta2 m + (1 - beta2) g.
    As in lion-pytorch, `decoupled_weight_decay` shrinks the weights by lr/initial_lr weight_decay.
    """
    m = state["m"] if state else 0.0 * grad
    decay = schedule_factor(lr, initial_lr) * weight_decay if decoupled_weight_decay else lr * weight_decay
    return param * (1 - decay) - lr * average(m, grad, betas[0]).sign(), {"m": average(m, grad, betas[1])}
