"""Asking a process of its own what a step costs, or would cost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from optbench.catalogue import entries
from optbench.cost import Cost, Memory
from optbench.costs import cost_id, memory_from_json, time_from_json
from optbench.errors import UsageError
from optbench.executors import Interruption
from optbench.executors.devices import gpus, thread_variables
from optbench.secrets import hidden

REFERENCE = "adamw"
MAX_SECONDS = 1800.0
_SECONDS_BETWEEN_LOOKS = 0.1

Config = Mapping[str, Any]


class StoppedError(Exception):
    """A signal came while a probe was under way."""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Asks one question after another, each of a new process.

    Args:
        allowed: packages that the command line allows configs to call.
        interruption: ends the process under way.
        max_seconds: that a question may take.
    """

    allowed: Sequence[str] = ()
    interruption: Interruption | None = None
    max_seconds: float = MAX_SECONDS

    def cost(self, config: Config, *, seconds: float) -> Cost:
        """Measure what a step of this trial costs, with a prediction beside it.

        Args:
            config: of the trial, in YAML's terms.
            seconds: of timing.

        Raises:
            UsageError: the config is wrong.
            StoppedError: a signal came.
        """
        question = {"kind": "cost", "configs": [config], "reference": reference(config), "seconds": seconds}
        found: dict[str, Any] = {}
        failures: dict[str, str] = {}
        for answer in self._ask(question, config):
            if "failure" in answer:
                failures[answer.get("of", "")] = answer["failure"]
            else:
                found |= answer
        if died := failures.pop("", None):
            failures |= {name: died for name in ("memory", "time", "predicted") if name not in {**found, **failures}}
        return Cost(
            id=cost_id(config),
            config=config,
            memory=memory_from_json(found.get("memory")),
            predicted=memory_from_json(found.get("predicted")),
            time=time_from_json(found.get("time")),
            contended=found.get("contended"),
            failures=failures,
            environment=found.get("environment", {}),
        )

    def predictions(self, configs: Sequence[Config]) -> dict[str, Memory]:
        """What steps of these trials would take, by their cost's id; what cannot be predicted is left out.

        Raises:
            UsageError: a config is wrong.
            StoppedError: a signal came.
        """
        question = {"kind": "predict", "configs": configs, "ids": [cost_id(config) for config in configs]}
        answers = self._ask(question, configs[0])
        memories = {answer["id"]: memory_from_json(answer.get("predicted")) for answer in answers if "id" in answer}
        return {key: memory for key, memory in memories.items() if memory is not None}

    def fit(self, config: Config, *, memory_bytes: int) -> Mapping[str, Any]:
        """What `optbench.fitting.Fit` has, in JSON's terms, under `fit`; or under `failure` why there is none.

        Raises:
            UsageError: the config is wrong.
            StoppedError: a signal came.
        """
        question = {"kind": "fit", "configs": [config], "memory_bytes": memory_bytes}
        return dict(item for answer in self._ask(question, config) for item in answer.items())

    def _ask(self, question: Mapping[str, Any], config: Config) -> Iterator[Mapping[str, Any]]:
        """The answers as they come; the last one is a `failure` where the process did not come to its end."""
        question = {**question, "allowed": list(self.allowed), "path": sys.path}
        with TemporaryDirectory(prefix="optbench-") as compiled:
            yield from self._asked(question, {**os.environ, **_variables(config["hardware"], compiled)})

    def _asked(self, question: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "optbench.probe", str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[writing],
            env=variables,
            start_new_session=True,
        )
        os.close(writing)
        with os.fdopen(reading) as answers, process:
            said: list[bytes] = []
            assert process.stdin is not None
            assert process.stderr is not None
            listener = Thread(target=lambda: said.append(process.stderr.read()), daemon=True)  # type: ignore[union-attr]
            listener.start()
            too_long: list[str] = []
            Thread(target=self._watch, args=[process, too_long], daemon=True).start()
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(question).encode())
                    process.stdin.close()
                for line in answers:
                    if not line.endswith("\n"):  # it was killed amid an answer
                        break
                    answer = json.loads(line)
                    if "mistake" in answer:
                        raise UsageError(answer["mistake"])
                    yield answer
                code = process.wait()
            finally:
                _end(process)
            if self.interruption is not None and self.interruption.is_requested:
                raise StoppedError
            if code:
                listener.join(timeout=1.0)
                yield {"failure": next(iter(too_long), None) or hidden(_why(code, b"".join(said)))}

    def _watch(self, process: "subprocess.Popen[bytes]", too_long: list[str]) -> None:
        """End the process when it takes too long, or nobody waits for it any more."""
        deadline = time.monotonic() + self.max_seconds
        while process.poll() is None:
            if time.monotonic() >= deadline:
                too_long.append(f"the probe was ended after {self.max_seconds:g} s")
                break
            if self.interruption is not None and self.interruption.is_requested:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        _end(process)  # the whole group: a process that it leaves behind would keep the answers open


def reference(config: Config) -> dict[str, Any]:
    """The same trial with what its times are compared with."""
    adamw = next(entry.config for entry in entries("optimizer") if entry.name == REFERENCE)
    hardware = dict(config["hardware"])
    if hardware.get("precision") == "bf16_params_stochastic":  # torch's AdamW has no such rounding
        hardware["precision"] = "bf16_params"
    return {**config, "optimizer": adamw, "hardware": hardware, "param_groups": None}


def _variables(hardware: Mapping[str, Any], compiled: str) -> dict[str, str]:
    """Variables that the process is born with.

    They are its threads, the first GPU where it may use one, and a folder for what is compiled, since what others have
    compiled before would not be compiled again.
    """
    found = thread_variables(hardware["num_threads"])
    found |= {"TORCHINDUCTOR_CACHE_DIR": f"{compiled}/inductor", "TRITON_CACHE_DIR": f"{compiled}/triton"}
    if hardware["device"] != "cpu" and (devices := gpus()):
        found["CUDA_VISIBLE_DEVICES"] = devices[0]
    return found


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _why(code: int, said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    if code < 0:
        return f"the probe was ended by signal {-code}{' (out of memory?)' if code == -signal.SIGKILL else ''}{last}"
    return f"the probe ended with code {code}{last}"
