"""What the allocator of a GPU gives away, phase by phase."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from optbench.cost import Memory, Phase
from optbench.tracker import Role


class Allocator:
    """What the allocator of a GPU gives away, phase by phase, from here on: what was there before is not counted.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        self._allocated_before = torch.cuda.memory_allocated(device)
        self._reserved_before = torch.cuda.memory_reserved(device)
        self._free_before = torch.cuda.mem_get_info(device)[0]
        self._phase: Phase | None = None
        self._peaks: dict[Phase, int] = {}
        self._before_step = 0
        self._transient_bytes = 0
        self._lasting_bytes = 0
        self._reserved_bytes = 0
        self._device_bytes = 0

    def start(self) -> None:
        """What comes now is counted."""
        torch.cuda.synchronize(self._device)
        self._phase = Phase.DATA
        self._peaks.clear()
        self._before_step = torch.cuda.memory_allocated(self._device)
        self._transient_bytes = self._reserved_bytes = 0
        torch.cuda.reset_peak_memory_stats(self._device)

    def mark(self, phase: Phase) -> None:
        """A phase begins; memory is given away when an operation is asked for, so that nobody waits for the GPU."""
        if self._phase is not None:
            allocated = torch.cuda.max_memory_allocated(self._device)
            most = allocated - self._allocated_before
            if self._phase is Phase.OPTIMIZER:
                self._transient_bytes = max(allocated - self._before_step, self._transient_bytes)
            self._before_step = torch.cuda.memory_allocated(self._device)
            reserved = torch.cuda.max_memory_reserved(self._device) - self._reserved_before
            self._peaks[self._phase] = max(most, self._peaks.get(self._phase, 0))
            self._reserved_bytes = max(reserved, self._reserved_bytes)
            self._phase = phase
            torch.cuda.reset_peak_memory_stats(self._device)

    def stop(self) -> None:
        """What comes now is not counted."""
        self.mark(Phase.DATA)
        self._phase = None
        torch.cuda.synchronize(self._device)
        self._lasting_bytes = torch.cuda.memory_allocated(self._device) - self._allocated_before
        self._device_bytes = self._free_before - torch.cuda.mem_get_info(self._device)[0]

    def corrected(self, seen: Memory, *, parts: Mapping[Phase, Mapping[str, int]], alive_bytes: int) -> Memory:
        """The allocator's peaks in place of those of tensors.

        What lasts from step to step and no tensor accounts for, such as the workspace of cuBLAS, is a part of its own,
        `workspace`; what comes and goes is among what has no role.

        Args:
            seen: by the log of tensors.
            parts: of the peak of each phase, by the same.
            alive_bytes: between two steps, by the same.
        """
        lasting = max(0, self._lasting_bytes - alive_bytes)
        peaks = {phase: self._peaks[phase] for phase in parts if phase in self._peaks}
        # What has a role is known from the log, but for how far the gradients had come in compiled code.
        held = {phase: sum(parts[phase][role] for role in Role) for phase in peaks}
        workspace = {phase: min(lasting, max(0, most - held[phase])) for phase, most in peaks.items()}
        loose = {phase: max(0, most - held[phase] - workspace[phase]) for phase, most in peaks.items()}
        peak_phase = max(peaks, key=peaks.__getitem__)
        rest = "transient" if peak_phase is Phase.OPTIMIZER else "activations"
        found = {**parts[peak_phase], rest: loose[peak_phase], "workspace": workspace[peak_phase]}
        found[Role.GRADIENTS.value] += peaks[peak_phase] - sum(found.values())
        return replace(
            seen,
            counted="allocated",
            activation_bytes=max((most for phase, most in loose.items() if phase is not Phase.OPTIMIZER), default=0),
            transient_bytes=self._transient_bytes,
            peak_bytes=peaks[peak_phase],
            peak_phase=peak_phase,
            phase_peak_bytes={phase.value: most for phase, most in peaks.items()},
            peak_parts=found,
            reserved_bytes=self._reserved_bytes,
            device_bytes=self._device_bytes,
        )
