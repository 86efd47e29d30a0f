"""Memory in bytes: exact for the optimizer's state, and the peak of a training step.

On the CPU the peak is that of *tensor bytes*: every storage that is alive during a step, seen from torch's
dispatcher. Workspace that a kernel allocates inside itself (oneDNN's convolutions do) is not seen. On a GPU it is
the allocator's own peak.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state; storage that is shared counts once."""
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for tensor in _tensors(state)
    }
    return sum(storages.values())


def low_bit_share(optimizer: torch.optim.Optimizer) -> float:
    """The share of trained parameters whose state is held in 8 bits or fewer, at least in part.

    Low-bit optimizers leave small tensors alone, so that one of them may in truth be a 32-bit one.
    """
    sizes = [parameter.numel() for group in optimizer.param_groups for parameter in group["params"]]
    low = sum(
        parameter.numel()
        for parameter, state in optimizer.state.items()
        if any(_is_low_bit(tensor) and 4 * tensor.numel() >= parameter.numel() for tensor in _tensors(state))
    )
    return float(low / sum(sizes))


def _is_low_bit(tensor: Tensor) -> bool:
    return tensor.element_size() == 1 and tensor.dtype != torch.bool


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a state: nested ones, those that a tensor subclass is made of, those that an object holds."""
    if isinstance(value, Tensor) and hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        for name in names:
            yield from _tensors(getattr(value, name))
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif type(value).__module__ not in ("builtins", "torch") and hasattr(value, "__dict__"):
        yield from _tensors(vars(value))  # such as the projector of a low-rank optimizer


def peak_tensor_bytes(
    step: Callable[[], object], *, module: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Any
) -> int:
    """The largest sum of tensor bytes alive while `step()` runs on the CPU.

    Args:
        step: does one whole training step.
        module: its parameters, buffers and gradients are there from the start.
        optimizer: its state is there from the start.
        batch: the minibatch that the step uses is there from the start.
    """
    live = _LiveBytes()
    for tensor in (*module.parameters(), *module.buffers(), *_tensors(batch)):
        live.add(tensor)
        if tensor.is_leaf and tensor.grad is not None:
            live.add(tensor.grad)
    for state in optimizer.state.values():
        for tensor in _tensors(state):
            live.add(tensor)
    with live:
        step()
    return live.peak_bytes


def peak_allocated_bytes(step: Callable[[], object], *, device: torch.device) -> int:
    """The allocator's peak on a GPU while `step()` runs, with all that was allocated before it."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages from the operation that makes them until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]  # typed in some versions of torch
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        num_bytes = storage.nbytes()
        self._known.add(key)
        self.live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._remove, key, num_bytes).atexit = False

    def _remove(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.live_bytes -= num_bytes

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self,
        func,
        types,
        args=(),
        kwargs=None,
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor):
                for tensor in _tensors(leaf):  # of a tensor subclass, what it is made of: itself it holds nothing
                    self.add(tensor)
        return results
