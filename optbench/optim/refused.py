"""Optimizers and arguments that are not what their names say: refused, with the reason and what to use instead.

Measured with bitsandbytes 0.50 and pytorch_optimizer 4.1; `tests/test_optimizer_traps.py` measures again.
"""

from collections.abc import Mapping
from typing import Any

_NO_TRUST_RATIO_8BIT = (
    "it has no trust ratio: its steps are those of {same} to the last bit. Use optimizer={ours}, in 32 bits."
)
_NO_TRUST_RATIO = (
    "it has no trust ratio: it cuts a step down to max_unorm times the weights' norm, and never scales one up. "
    "Use optimizer={ours}."
)

REFUSED: Mapping[str, str] = {
    "bitsandbytes.optim.LAMB8bit": _NO_TRUST_RATIO_8BIT.format(same="bitsandbytes' Adam8bit", ours="lamb"),
    "bitsandbytes.optim.LARS8bit": _NO_TRUST_RATIO_8BIT.format(same="bitsandbytes' SGD8bit", ours="lars"),
    **{f"bitsandbytes.optim.{name}": _NO_TRUST_RATIO.format(ours="lamb") for name in ("LAMB", "LAMB32bit")},
    **{
        f"bitsandbytes.optim.{name}": _NO_TRUST_RATIO.format(ours="lars")
        for name in ("LARS", "LARS32bit", "PytorchLARS")
    },
    "pytorch_optimizer.APOLLO": (
        "it is not the paper's: it steps along the projected gradient, so that an update has no higher rank than the "
        "projection, and as APOLLO-Mini it diverges. Use optimizer=apollo or optimizer=apollo_mini."
    ),
}
"""Target -> reason."""


def _arguments(names: str, refused: Mapping[str, tuple[Any, str]]) -> dict[str, Mapping[str, tuple[Any, str]]]:
    return {f"bitsandbytes.optim.{name}": refused for name in names.split()}


_AMSGRAD = {"amsgrad": (False, "the class ignores it. Use optimizer=amsgrad, in 32 bits.")}
_SGD = {
    "nesterov": (False, "the class ignores it. Use optimizer=nesterov, in 32 bits."),
    "dampening": (0.0, "the class ignores it. Use optimizer=momentum, in 32 bits."),
}
_RMSPROP = {"momentum": (0.0, "the class ignores it. Use optimizer=rmsprop, in 32 bits.")}

REFUSED_ARGUMENTS: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    **_arguments("Adam Adam32bit PagedAdam PagedAdam32bit AdamW AdamW32bit PagedAdamW PagedAdamW32bit", _AMSGRAD),
    **_arguments("SGD SGD32bit SGD8bit", _SGD),
    **_arguments("RMSprop RMSprop32bit RMSprop8bit", _RMSPROP),
}
"""Target -> argument -> the one value that it really has, and the reason to refuse others."""

NEEDS_MATRICES: Mapping[str, tuple[str, ...]] = {
    "pytorch_optimizer.GaLore": ("rank", "update_proj_gap", "scale", "projection_type"),
    "optbench.optim.apollo.APOLLO": ("rank",),
}
"""Target -> keys that the parameter group of its matrices must have; without the first the class is plain AdamW."""
