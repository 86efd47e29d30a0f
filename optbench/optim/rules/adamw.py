"""AdamW: Adam with decay outside the gradient, in the three sizes of the decay that are in use."""

from torch import Tensor

from optbench.optim.rules.adam import adam_step
from optbench.optim.rules.base import Betas, Scalar, State, per_tensor, schedule_factor


@per_tensor
def adamw(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    betas: Betas,
    eps: Scalar,
    weight_decay: Scalar,
    amsgrad: bool = False,
) -> tuple[Tensor, State]:
    """PyTorch's AdamW: the weights shrink by lr weight_decay.

    Loshchilov and Hutter (2019), algorithm 2, line 12, has eta_t weight_decay: `adamw_independent`.
    """
    step, state = adam_step(state, grad, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)
    return param * (1 - lr * weight_decay) - step, state


@per_tensor
def adamw_independent(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    initial_lr: Scalar,
    betas: Betas,
    eps: Scalar,
    weight_decay: Scalar,
    amsgrad: bool = False,
) -> tuple[Tensor, State]:
    """AdamW, Loshchilov and Hutter (2019), algorithm 2; as Composer's DecoupledAdamW.

    Line 12: theta <- theta - eta_t (alpha m_hat / (sqrt(v_hat) + eps) + weight_decay theta). eta_t, the factor of the
    schedule, is lr/initial_lr: the decay follows the schedule, and does not know the peak rate alpha.
    """
    step, state = adam_step(state, grad, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)
    return param * (1 - schedule_factor(lr, initial_lr) * weight_decay) - step, state


@per_tensor
def adamw_fixed(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    betas: Betas,
    eps: Scalar,
    weight_decay: Scalar,
    amsgrad: bool = False,
) -> tuple[Tensor, State]:
    """AdamW with one decay for all steps: Loshchilov and Hutter (2019), algorithm 2, with eta_t = 1 in the decay."""
    step, state = adam_step(state, grad, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)
    return param * (1 - weight_decay) - step, state
