"""What to train on and in which way: the part of a trial that changes its cost, and its figures by rounding alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

Precision = Literal["fp32", "tf32", "bf16", "fp16", "bf16_params", "bf16_params_stochastic"]
Implementation = Literal["for_loop", "foreach", "fused"]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What to train on, and how the same step is computed there.

    Attributes:
        device: `auto` takes the GPU where there is one.
        num_threads: of the processor, for each operation.
        precision: `tf32` rounds the factors of products, `bf16` and `fp16` are autocast with parameters in float32, the
            latter with a scaled loss; `bf16_params` keeps parameters and gradients in bfloat16, too, and its stochastic
            form has the optimizer round them at random, so that small steps are not lost.
        implementation: of `step()`, where the optimizer has several; None leaves it to the optimizer.
        compile_model: by `torch.compile`.
        compile_step: the optimizer's `step()`, the same.
        gradient_checkpointing: activations are computed again in the backward pass.
        num_micro_batches: a minibatch goes through in so many parts, whose gradients are added up.
        deterministic: by `torch.use_deterministic_algorithms`.
        memory_limit_gb: what a trial may take of a GPU, or what it has, in units of 2**30 bytes.
    """

    device: Literal["auto", "cpu", "cuda"]
    num_threads: int
    precision: Precision = "fp32"
    implementation: Implementation | None = None
    compile_model: bool = False
    compile_step: bool = False
    gradient_checkpointing: bool = False
    num_micro_batches: int = 1
    deterministic: bool = False
    memory_limit_gb: float | None = None

    @property
    def compiles(self) -> bool:
        """Whether anything is compiled."""
        return self.compile_model or self.compile_step


# What a key that came later is in a config without it; a stored result keeps its name.
SINCE: Mapping[str, Any] = {
    field.name: field.default for field in fields(Hardware) if field.name not in ("device", "num_threads")
}


def asked(hardware: Hardware) -> dict[str, Any]:
    """What tells it from others: keys that came later only where they change something."""
    return {key: value for key, value in vars(hardware).items() if key not in SINCE or value != SINCE[key]}
