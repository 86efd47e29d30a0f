"""What is alive during a training step: a log of every tensor's bytes, from which peaks and their parts are told.

*Tensor bytes* are seen from torch's dispatcher: every storage from the operation that makes it until it is freed.
Workspace that a kernel allocates inside itself (oneDNN's convolutions do) is not seen. The same log can be kept of
tensors without data, of a step that is gone through and not taken.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optbench.cost import Phase


class Role(StrEnum):
    """What a tensor is for; a storage that has several has the first of them."""

    PARAMETERS = "parameters"
    FROZEN = "frozen"
    GRADIENTS = "gradients"
    STATE = "state"
    BATCH = "batch"


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a log comes to.

    Attributes:
        phase_bytes: the most that is alive at a time in each phase, in the order of the phases.
        phase_parts: what is alive then: each role, and all else as `activations`, in the optimizer's phase `transient`.
        activation_bytes: the most that is alive in forward and backward and has no role.
        transient_bytes: the most that the optimizer's phase takes besides what was alive when it began.
    """

    phase_bytes: Mapping[Phase, int]
    phase_parts: Mapping[Phase, Mapping[str, int]]
    activation_bytes: int
    transient_bytes: int


class Tracker(TorchDispatchMode):
    """Logs the bytes of storages from the operation that makes them until they are freed.

    Args:
        device: storages elsewhere take nothing of it.

    Attributes:
        alive_bytes: at this moment.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]  # typed in some versions of torch
        self.alive_bytes = 0
        self._device_type = device.type
        self._phase = Phase.DATA
        self._log: list[tuple[int, int, Phase]] = []  # serial number, change in bytes, when
        self._start = 0  # where in the log `peaks` begins
        self._sizes: dict[int, int] = {}  # of each storage that is alive, by serial number
        self._serials: dict[int, int] = {}  # of each storage that is alive, by its address
        self._roles: dict[int, Role] = {}  # by serial number
        self._num_storages = 0

    def mark(self, phase: Phase) -> None:
        """A phase begins."""
        self._phase = phase
        self._log.append((-1, 0, phase))

    def start(self) -> None:
        """What came before is of interest only where it is still alive."""
        self._start = len(self._log)

    def add(self, tensors: Iterable[Tensor], role: Role) -> None:
        """These are there, and for this."""
        for tensor in _dense(tensors):
            if (serial := self._add(tensor)) is not None:
                known = self._roles.get(serial, role)
                self._roles[serial] = min(known, role, key=list(Role).index)

    def add_batch(self, batch: Any) -> int:
        """The minibatch is there; returns its bytes. Of one that is a piece of the data set, the piece is counted."""
        pieces: dict[int, tuple[Tensor, int]] = {}
        for tensor in _dense(leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)):
            _, num_bytes = pieces.get(_address(tensor), (tensor, 0))
            pieces[_address(tensor)] = tensor, num_bytes + tensor.numel() * tensor.element_size()
        total = 0
        for tensor, num_bytes in pieces.values():
            taken = min(num_bytes, tensor.untyped_storage().nbytes())
            if (serial := self._add(tensor, num_bytes=taken)) is not None:
                self._roles.setdefault(serial, Role.BATCH)
                total += taken
        return total

    def peaks(self) -> Peaks:
        """The peaks since `start`, worked out from the whole log."""
        best = dict.fromkeys((Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER), (-1, 0))
        alive = loose = before_step = activation_bytes = transient_bytes = 0
        for index, (serial, change, phase) in enumerate(self._log):
            alive += change
            loose += 0 if serial in self._roles else change
            if serial == -1:
                before_step = alive
            if index < self._start or phase is Phase.DATA:
                continue
            best[phase] = max(best[phase], (alive, -index))  # the first of several instants
            if phase is Phase.OPTIMIZER:
                transient_bytes = max(transient_bytes, alive - before_step)
            else:
                activation_bytes = max(activation_bytes, loose)
        seen = {phase: (most, -index) for phase, (most, index) in best.items() if most >= 0}
        return Peaks(
            phase_bytes={phase: most for phase, (most, _) in seen.items()},
            phase_parts={phase: self._parts(index, phase) for phase, (_, index) in seen.items()},
            activation_bytes=activation_bytes,
            transient_bytes=transient_bytes,
        )

    def _parts(self, index: int, phase: Phase) -> dict[str, int]:
        """What is alive after this entry of the log."""
        rest = "transient" if phase is Phase.OPTIMIZER else "activations"
        found = dict.fromkeys([*(role.value for role in Role), rest], 0)
        for serial, change, _ in self._log[: index + 1]:
            role = self._roles.get(serial)
            found[rest if role is None else role.value] += change
        return found

    def _add(self, tensor: Tensor, *, num_bytes: int | None = None) -> int | None:
        """The serial number of the tensor's storage, which is alive; None of one elsewhere."""
        if tensor.device.type != self._device_type:
            return None
        storage, address = tensor.untyped_storage(), _address(tensor)
        if (serial := self._serials.get(address)) is None:
            serial = self._num_storages
            self._num_storages += 1
            self._serials[address] = serial
            self._sizes[serial] = 0
            self._change(serial, storage.nbytes() if num_bytes is None else num_bytes)
            weakref.finalize(storage, self._remove, address, serial).atexit = False
        return serial

    def _change(self, serial: int, change: int) -> None:
        if change:
            self.alive_bytes += change
            self._sizes[serial] += change
            self._log.append((serial, change, self._phase))

    def _remove(self, address: int, serial: int) -> None:
        del self._serials[address]
        self._change(serial, -self._sizes[serial])
        del self._sizes[serial]

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
                is_made_of_others = hasattr(leaf, "__tensor_flatten__")
                for tensor in _dense([leaf]):
                    self._see(tensor, can_be_old=not is_made_of_others and _returns_its_arguments(func))
        return results

    def _see(self, tensor: Tensor, *, can_be_old: bool) -> None:
        """An operation returned the tensor; one of unknown storage that may be an argument's was there before."""
        serial = self._serials.get(_address(tensor))
        if serial is None and not can_be_old:
            self._add(tensor)
        elif serial is not None and can_be_old and self._roles.get(serial) is not Role.BATCH:
            self._change(serial, tensor.untyped_storage().nbytes() - self._sizes[serial])  # where it was resized


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The dense tensors in a state: nested ones, those that a tensor subclass or another object is made of."""
    if isinstance(value, Tensor) and hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        for name in names:
            yield from tensors_in(getattr(value, name))
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif type(value).__module__ not in ("builtins", "torch") and hasattr(value, "__dict__"):
        yield from tensors_in(vars(value))  # such as the projector of a low-rank optimizer


def _dense(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    for tensor in tensors:
        yield from tensors_in(tensor)


def _address(tensor: Tensor) -> int:
    """Of its storage: tensors without data have no address of their data."""
    return int(tensor.untyped_storage()._cdata)


def _returns_its_arguments(func: Any) -> bool:
    """Whether what an operation returns is an argument or a view of one."""
    schema = getattr(func, "_schema", None)
    if schema is None or func is torch.ops.aten.lift_fresh.default:  # which every `torch.tensor(1.0)` ends with
        return False
    return any(result.alias_info is not None for result in schema.returns)
