"""Asking a process of its own what a step costs, or would cost."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from optbench.asking import Process
from optbench.catalogue import entries
from optbench.cost import Cost, Memory
from optbench.costs import cost_id, memory_from_json, time_from_json
from optbench.executors import Interruption
from optbench.executors.devices import gpus, thread_variables

REFERENCE = "adamw"
MAX_SECONDS = 1800.0

Config = Mapping[str, Any]


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
            process = Process(
                command=[sys.executable, "-m", "optbench.probe"],
                variables={**os.environ, **_variables(config["hardware"], compiled)},
                what="the probe",
                interruption=self.interruption,
                max_seconds=self.max_seconds,
            )
            yield from process.ask(question)


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
