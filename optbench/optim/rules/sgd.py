"""Gradient descent: with momentum, with Nesterov's, and with decay outside the gradient."""

from torch import Tensor

from optbench.optim.rules.base import Scalar, State, per_tensor, schedule_factor


@per_tensor
def sgd(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    momentum: Scalar = 0.0,
    dampening: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
) -> tuple[Tensor, State]:
    """PyTorch's SGD: Polyak (1964), with Nesterov's momentum in the form of Sutskever et al. (2013).

    v <- momentum v + (1 - dampening) g, but v = g in the first step; theta <- theta - lr v, with Nesterov's momentum
    theta - lr (g + momentum v). The rate stands outside v, the papers' inside: the same while lr is constant.
    """
    update, state = _momentum(
        state, grad + weight_decay * param, momentum=momentum, dampening=dampening, nesterov=nesterov
    )
    return param - lr * update, state


@per_tensor
def nesterov_lookahead(
    state: State, param: Tensor, grad: Tensor, *, lr: Scalar, momentum: Scalar, weight_decay: Scalar = 0.0
) -> tuple[Tensor, State]:
    """Nesterov's momentum as Sutskever et al. (2013) write it, eq. 3 and 4.

    v' = momentum v - lr g(theta + momentum v); theta' = theta + v'. The parameters held here are the point looked
    ahead to, x = theta + momentum v, since a training loop takes its gradients where the parameters are. Hence
    x' = x + (1 + momentum) v' - momentum v. The rate is inside v: while it is constant, this is PyTorch's form.
    """
    v = state["v"] if state else 0.0 * param
    new = momentum * v - lr * (grad + weight_decay * param)
    return param + (1 + momentum) * new - momentum * v, {"v": new}


@per_tensor
def sgdw(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    momentum: Scalar = 0.0,
    dampening: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    weight_decouple: bool = True,
    nesterov: bool = False,
) -> tuple[Tensor, State]:
    """SGDW, Loshchilov and Hutter (2019), algorithm 1, with PyTorch's conventions.

    The weights shrink by lr weight_decay, where the paper shrinks them by eta_t weight_decay (`sgdw_independent`), and
    the rate is outside the momentum, where the paper's line 8 has it inside.
    """
    decayed = param * (1 - lr * weight_decay) if weight_decouple else param
    grad = grad if weight_decouple else grad + weight_decay * param
    update, state = _momentum(state, grad, momentum=momentum, dampening=dampening, nesterov=nesterov)
    return decayed - lr * update, state


@per_tensor
def sgdw_independent(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    initial_lr: Scalar,
    momentum: Scalar = 0.0,
    dampening: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
) -> tuple[Tensor, State]:
    """SGDW with the decay of Loshchilov and Hutter (2019), algorithm 1, line 9; as Composer's DecoupledSGDW.

    The weights shrink by eta_t weight_decay: eta_t = lr/initial_lr is the schedule's factor, whatever the peak rate.
    """
    update, state = _momentum(state, grad, momentum=momentum, dampening=dampening, nesterov=nesterov)
    return param * (1 - schedule_factor(lr, initial_lr) * weight_decay) - lr * update, state


def _momentum(
    state: State, grad: Tensor, *, momentum: Scalar, dampening: Scalar, nesterov: bool
) -> tuple[Tensor, State]:
    """The direction and the momentum of PyTorch, which damps neither the first step nor one without momentum."""
    v = momentum * state["v"] + (1 - dampening * (momentum != 0)) * grad if state else grad
    return grad + momentum * v if nesterov else v, {"v": v}
