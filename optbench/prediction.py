"""What a training step would take, gone through with tensors that have sizes and no data: no GPU, no memory, no guess.

The shapes, dtypes and lifetimes of all tensors are those of the training; its numbers are not there. Where a library
asks for one, it is given an answer that leads it along the path that training takes. The kernels are those of the CPU
on every machine, with the defaults of a GPU where the trial asks for one.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.optim import optimizer as torch_optimizer
from torch.utils import _foreach_utils
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from optbench import building
from optbench.component import Limit
from optbench.cost import Memory
from optbench.device import configured
from optbench.errors import UsageError
from optbench.hardware import Hardware
from optbench.memory import Training, eager, no_garbage, prepare
from optbench.task import Task
from optbench.trial import Trial

aten = torch.ops.aten
_CPU = torch.device("cpu")


class NotPredictable(Exception):  # noqa: N818  it says what a trial is
    """The step cannot be gone through without data; the message says why."""


def predict(trial: Trial) -> Memory:
    """What a training step of the trial would take, in tensor bytes.

    Args:
        trial: what would be trained, and how; its device need not be here.

    Raises:
        NotPredictable: the step depends on numbers that are not there.
        UsageError: a setting is wrong.
    """
    if reason := trial.optimizer.limits.get(Limit.PREDICTION):
        raise NotPredictable(f"{trial.optimizer.name}: {reason}")
    with _without_data(trial) as mode:
        training = Training(trial, _CPU, batches=lambda task: _batches(task, mode))
        return replace(training.memory(), kind="predicted")


def check(trial: Trial) -> None:
    """Build what would be trained, and go through nothing.

    Raises:
        NotPredictable: not even that is possible without data.
        UsageError: a setting is wrong.
    """
    with _without_data(trial):
        building.build_task(trial, _CPU)


@contextmanager
def _without_data(trial: Trial) -> Iterator[FakeTensorMode]:
    """Tensors that are made here have no data; whatever goes wrong with that is `NotPredictable`."""
    hardware = replace(trial.hardware, memory_limit_gb=None)  # there may be no such GPU here
    try:
        with configured(hardware, _CPU), eager(), no_garbage(), _defaults(hardware):
            prepare(trial, _CPU)  # what libraries keep for later must have its data
            with _convertible_modules(), FakeTensorMode(allow_non_fake_inputs=True) as mode, _Answers():
                yield mode
    except UsageError:
        raise
    except Exception as error:
        what = str(error).strip().partition("\n")[0]
        raise NotPredictable(f"gone through without data, it fails: {type(error).__name__}: {what}") from error


def _batches(task: Task, mode: FakeTensorMode) -> Iterator[Any]:
    """The task's minibatches, made without data or, by a task that looks at them, with them."""
    batches = task.batches()
    try:
        yield _faked(next(batches), mode)
    except UsageError:
        raise
    except Exception:
        with unset_fake_temporarily():
            batches = task.batches()
        while True:
            with unset_fake_temporarily():
                batch = next(batches)
            yield _faked(batch, mode)
    for batch in batches:
        yield _faked(batch, mode)


def _faked(batch: Any, mode: FakeTensorMode) -> Any:
    """The same without data, where it has any."""
    return tree_map(lambda leaf: mode.from_tensor(leaf) if _is_real(leaf) else leaf, batch)


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor)


@contextmanager
def _defaults(hardware: Hardware) -> Iterator[None]:
    """What torch takes real tensors for: the kernels for many tensors at once, which optimizers use on a GPU."""
    is_gpu = hardware.device == "cuda" or (hardware.device == "auto" and torch.cuda.is_available())
    devices = _get_foreach_kernels_supported_devices()
    with ExitStack() as stack:
        for types in (_foreach_utils._foreach_supported_types, torch_optimizer._foreach_supported_types):
            types.append(FakeTensor)
            stack.callback(types.remove, FakeTensor)
        if is_gpu:
            stack.enter_context(
                patch.object(torch_optimizer, "_get_foreach_kernels_supported_devices", lambda: [*devices, "cpu"])
            )
        yield


@contextmanager
def _convertible_modules() -> Iterator[None]:
    """Modules that can be given another dtype without data: torch swaps their tensors, and cannot do so then."""

    def apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        if recurse:
            for child in self.children():
                child._apply(fn)
        for parameter in self._parameters.values():
            if parameter is not None:
                with torch.no_grad():
                    parameter.data = fn(parameter)  # the same object, so that what is tied stays tied
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    with patch.object(nn.Module, "_apply", apply):
        yield


class _Answers(TorchDispatchMode):
    """Answers what libraries ask of a tensor's numbers: each is a half, but for those of a tensor filled with zeros."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]  # typed in some versions of torch
        self._known = WeakIdKeyDictionary()  # truths, and numbers that are not a half
        self._zeros = WeakIdKeyDictionary()  # storages

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:  # type: ignore[no-untyped-def]
        if func in _QUESTIONS and isinstance(args[0], FakeTensor):
            return self._answer(args[0])
        result = func(*args, **(kwargs or {}))
        packet = getattr(func, "overloadpacket", None)
        if packet is aten._amp_foreach_non_finite_check_and_unscale_:
            self._known[args[1]] = 0.0
        elif isinstance(result, FakeTensor) and result.dtype == torch.bool and packet in _TRUTHS:
            self._known[result] = _TRUTHS[packet](*map(self._answer, args[:2]))
        elif not self._is_zeros(packet, result, args):
            for tensor in _written(func, args, kwargs or {}):
                self._zeros.pop(tensor.untyped_storage(), None)
        return result

    def _is_zeros(self, packet: Any, result: Any, args: Sequence[Any]) -> bool:
        """Whether the operation filled a tensor with zeros; those of a whole storage are noted."""
        if not isinstance(result, FakeTensor) or packet not in _FILLS:
            return False
        if any(self._answer(value) for value in args[1:][: _FILLS[packet]]):
            return False
        if result.numel() * result.element_size() == result.untyped_storage().nbytes():
            self._zeros[result.untyped_storage()] = True
        return True

    def _answer(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value in self._known:
            return self._known[value]
        real = value.constant if isinstance(value, FakeTensor) else value
        if real is not None and real.numel() == 1:
            with unset_fake_temporarily():
                return real.item()
        if value.untyped_storage() in self._zeros:
            return 0.0 if value.is_floating_point() else 0
        return _HALF if value.is_floating_point() else value.dtype != torch.bool


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[FakeTensor]:
    """The tensors that an operation writes to."""
    schema = getattr(func, "_schema", None)
    if schema is not None and schema.is_mutable:
        for index, argument in enumerate(schema.arguments):
            if argument.is_write:
                value = args[index] if index < len(args) else kwargs.get(argument.name)
                yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, FakeTensor))


_HALF = 0.5
# What fills a tensor, and how many arguments after the first say with what; with zeros, where there are none.
_FILLS: Mapping[Any, int] = {
    aten.zeros: 0,
    aten.zeros_like: 0,
    aten.new_zeros: 0,
    aten.zero_: 0,
    aten.fill_: 1,
    aten.full: 1,
}
_QUESTIONS = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)
_TRUTHS: Mapping[Any, Callable[..., bool]] = {
    aten.gt: operator.gt,
    aten.ge: operator.ge,
    aten.lt: operator.lt,
    aten.le: operator.le,
    aten.eq: operator.eq,
    aten.ne: operator.ne,
    aten.any: lambda value, _=None: bool(value),
    aten.all: lambda value, _=None: bool(value),
    aten.logical_not: operator.not_,
    aten.bitwise_not: operator.not_,
    aten.logical_and: lambda a, b: bool(a and b),
    aten.bitwise_and: lambda a, b: bool(a and b),
    aten.mul: lambda a, b: bool(a and b),
    aten.logical_or: lambda a, b: bool(a or b),
    aten.bitwise_or: lambda a, b: bool(a or b),
}
