"""What NVIDIA's management library says of a GPU: what runs on it, and the energy that it took."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as the library knows it.

    Attributes:
        library: the module `pynvml`.
        handle: the library's own.
    """

    library: Any
    handle: Any

    def ask(self, question: str) -> Any:
        """What the library's function of this name answers; None where this GPU or driver does not know."""
        try:
            return getattr(self.library, question)(self.handle)
        except (AttributeError, self.library.NVMLError):
            return None


def gpu(device: torch.device) -> Gpu | None:
    """The GPU that torch calls so; None for a CPU, and where the package nvidia-ml-py or the library is missing."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # Torch numbers those that CUDA_VISIBLE_DEVICES names, the library all of them.
        identity = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return Gpu(library=pynvml, handle=pynvml.nvmlDeviceGetHandleByUUID(identity))
    except (AttributeError, pynvml.NVMLError):
        return None
