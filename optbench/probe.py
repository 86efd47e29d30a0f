"""The process that measures what a step costs, alone: `python -m optbench.probe <descriptor>`.

The question comes on standard input, as JSON; answers go to the descriptor, a line of JSON each, as soon as they are
there: what ends the process later costs the later ones alone.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TextIO

from optbench.allowlist import check_names, check_targets, components_of
from optbench.errors import UsageError
from optbench.parsing import finite
from optbench.secrets import hidden
from optbench.trial import Trial

OUT_OF_MEMORY = "out of memory"
SECONDS_BETWEEN_LOOKS = 0.5


def main() -> None:
    """Answer one question."""
    threading.Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()
    question = json.load(sys.stdin)
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
        sys.path[:] = question["path"]
        try:
            for answer in _answers(question):
                _write(answers, answer)
        except UsageError as error:
            _write(answers, {"mistake": str(error)})
    os._exit(0)  # tearing down what libraries hold takes its time


def _end_with_parent(parent: int) -> None:
    """End this process and those that it has started once nobody waits for its answers."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.killpg(0, signal.SIGKILL)


def _answers(question: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    first, *_ = configs = question["configs"]
    match question["kind"]:
        case "cost":
            reference = _trial(question["reference"], question)
            yield from _cost(_trial(first, question), reference, seconds=question["seconds"])
        case "predict":
            for key, config in zip(question["ids"], configs, strict=True):
                try:
                    yield {"id": key, **_predicted(_trial(config, question))}
                except UsageError as error:  # it costs this prediction alone: nothing of it is to be run now
                    yield {"id": key, "of": "predicted", "failure": str(error)}
        case "fit":
            yield from _fit(_trial(first, question), memory_bytes=question["memory_bytes"])


def _trial(config: Mapping[str, Any], question: Mapping[str, Any]) -> Trial:
    trial = Trial.from_config(config)
    check_names(components_of(trial), allowed=question["allowed"])
    check_targets(components_of(trial), allowed=question["allowed"])
    return trial


def _cost(trial: Trial, reference: Trial, *, seconds: float) -> Iterator[Mapping[str, Any]]:
    """Memory first, before there is anything else in it; then time; the prediction last, since it changes torch."""
    import torch

    from optbench import contention, memory, timing
    from optbench.device import configured, resolve_device
    from optbench.environment import environment

    device = resolve_device(trial.hardware)
    watch = contention.Watch(device)
    with configured(trial.hardware, device):
        yield {"environment": environment(device)}
        measured = _tried("memory", lambda: asdict(memory.measure(trial, device)))
        yield measured
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if not str(measured.get("failure", "")).startswith(OUT_OF_MEMORY):
            with watch:
                timed = _tried("time", lambda: asdict(timing.measure(trial, reference, device, seconds=seconds)))
            yield timed
            yield {"contended": watch.findings}
    yield _predicted(trial)


def _predicted(trial: Trial) -> Mapping[str, Any]:
    from optbench.prediction import predict

    return _tried("predicted", lambda: asdict(predict(trial)))


def _fit(trial: Trial, *, memory_bytes: int) -> Iterator[Mapping[str, Any]]:
    from optbench.fitting import fit

    yield _tried("fit", lambda: asdict(fit(trial, memory_bytes=memory_bytes)))


def _tried(name: str, work: Callable[[], Any]) -> Mapping[str, Any]:
    """What the work gives, under this name, or why it gives nothing."""
    from optbench.prediction import NotPredictable
    from optbench.run import is_out_of_memory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trial's own warnings are in its row
        try:
            return {name: finite(work())}
        except UsageError:
            raise
        except NotPredictable as error:
            return {"of": name, "failure": hidden(str(error))}
        except (Exception, SystemExit) as error:
            what = f"{OUT_OF_MEMORY}: " if is_out_of_memory(error) else ""
            reason = str(error).partition("\n")[0]
            return {"of": name, "failure": hidden(f"{what}{type(error).__name__}: {reason}")}


def _write(answers: TextIO, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer, allow_nan=False) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
