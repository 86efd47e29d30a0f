"""The Ray executor: on a real cluster of two machines, both of them on this one, and on one that is made up."""

import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

from optbench import __version__, lease
from optbench.compose import Composer
from optbench.errors import UsageError
from optbench.execution import Checked, Context, Finished, Held, Job, Measured, Refused, Started
from optbench.executors import Listed, ray
from optbench.executors.cluster import Lost
from optbench.executors.ray import RayExecutor
from optbench.executors.remote import Place, RemoteSlot, Setting
from optbench.measurement import Measurement, Status
from optbench.store import Store
from optbench.trial import Trial
from tests import handmade
from tests.conftest import MakeTrial

# A machine that is gone is noticed after seconds, not after half a minute.
IMPATIENT = {"health_check_period_ms": 1000, "health_check_failure_threshold": 4}
MACHINE = {"num_cpus": 1, "include_log_monitor": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two machines with one core each."""
    made = Cluster(
        initialize_head=True,
        head_node_args={
            **MACHINE,
            "num_gpus": 1,
            "no_monitor": True,
            "include_dashboard": False,
            "_system_config": IMPATIENT,
        },
    )
    made.add_node(**MACHINE)
    yield made
    made.shutdown()


@pytest.fixture
def context(tmp_path: Path, make_trial: MakeTrial) -> Context:
    return handmade.context(tmp_path, hardware=[make_trial("hardware=cpu").hardware], grace_seconds=60.0)


MakeTrials = Callable[..., list[Trial]]


@pytest.fixture
def make_trials(composer: Composer) -> MakeTrials:
    """So many trials, which differ by their seeds."""

    def make(number: int, *, num_steps: int = 20) -> list[Trial]:
        words = ["task=quadratic", "optimizer=sgd", "hardware=cpu", f"budget.num_steps={num_steps}"]
        (config,) = composer.configs(words, one_trial=True)
        return [Trial.from_config({**config, "seed": seed}) for seed in range(number)]

    return make


class Watcher:
    """Notes what it hears, and calls a function at each measurement."""

    def __init__(self, *, on_measured: Callable[[], None] = lambda: None) -> None:
        self.slots: dict[str, str] = {}
        self.finished_trials: Counter[str] = Counter()
        self.statuses: list[Status] = []
        self.messages: list[str] = []
        self._on_measured = on_measured

    def started(self, slot: str, trial: Trial) -> None:
        self.slots[trial.id] = slot

    def progressed(self, slot: str, step: int, loss: float | None) -> None:
        pass

    def measured(self, slot: str, measurement: Measurement) -> None:
        self._on_measured()

    def finished(self, slot: str, trial: Trial, status: Status, *, reason: str | None, log: str | None) -> None:
        self.finished_trials[trial.id] += 1
        self.statuses.append(status)

    def message(self, text: str) -> None:
        self.messages.append(text)


class Asked:
    """What is asked from outside."""

    def __init__(self, *, is_requested: bool = False, is_urgent: bool = False) -> None:
        self.is_requested = is_requested
        self.is_urgent = is_urgent


class Pruning(Listed):
    """Gives up every trial once it has begun."""

    def measured(self, trial: Trial, measurement: Measurement) -> bool:
        return False


class Endless(Listed):
    """Gives trials until it is told that there are enough."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        super().__init__(jobs)
        self.given: set[str] = set()
        self.ends = False

    @property
    def is_exhausted(self) -> bool:
        return self.ends or super().is_exhausted

    def next(self) -> Job | None:
        job = None if self.ends else super().next()
        if job is not None:
            self.given.add(job.trial.id)
        return job


def jobs(trials: Iterable[Trial]) -> list[Job]:
    return [Job(trial=trial) for trial in trials]


@contextmanager
def running(address: str | None, **changes: Any) -> Iterator[RayExecutor]:
    settings: Mapping[str, Any] = {
        "address": address,
        "num_slots": None,
        "gpus_per_slot": None,
        "cpus_per_slot": None,
        "max_lost": 2,
    }
    executor = RayExecutor(**{**settings, **changes})
    try:
        yield executor
    finally:
        executor.close()


def stored(context: Context) -> dict[str, str]:
    """The status of each trial in the store."""
    index = Store(Path(context.results), context.sweep).index()
    return dict(zip(index["id"], index["status"], strict=True))


def leftovers(context: Context) -> list[Path]:
    return list((Path(context.results) / context.sweep / "tmp").iterdir())


def test_a_sweep_runs_on_both_machines_and_stores_every_result_once(
    cluster: Cluster, context: Context, make_trials: MakeTrials
) -> None:
    trials, watcher = make_trials(16), Watcher()
    handler = signal.getsignal(signal.SIGTERM)
    with running(cluster.address) as executor:
        executor.prepare(context)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert executor.num_slots(context) == 2
        assert executor.check(trials, context) == []
        executor.execute(Listed(jobs(trials)), context=context, observer=watcher, interruption=Asked())
    assert stored(context) == dict.fromkeys([trial.id for trial in trials], "completed")
    assert watcher.finished_trials == Counter(trial.id for trial in trials)
    assert len(set(watcher.slots.values())) == 2
    assert watcher.messages == []
    assert leftovers(context) == []


def test_a_mistake_is_found_where_the_trials_would_run_and_what_runs_is_stopped_when_asked(
    cluster: Cluster, context: Context, make_trials: MakeTrials, make_trial: MakeTrial
) -> None:
    trials = make_trials(3, num_steps=10_000_000)
    asked = Asked()
    with running(cluster.address, num_slots=1) as executor:
        with pytest.raises(UsageError, match=r"hardware\.device=cuda"):
            executor.check([make_trial("task=quadratic", "optimizer=sgd", "hardware=cuda")], context)
        pruning = Pruning(jobs(trials[:1]))
        executor.execute(pruning, context=context, observer=Watcher(), interruption=asked)
        interrupting = Watcher(on_measured=lambda: setattr(asked, "is_requested", True))
        executor.execute(Listed(jobs(trials[1:])), context=context, observer=interrupting, interruption=asked)
    assert stored(context) == {trials[0].id: "pruned", trials[1].id: "preempted"}
    assert interrupting.statuses == [Status.PREEMPTED]


@pytest.mark.verify
def test_slots_share_a_gpu_where_they_are_told_to(
    cluster: Cluster, context: Context, make_trials: MakeTrials, make_trial: MakeTrial
) -> None:
    # Ray takes our word for there being one; torch finds none, and `hardware=auto` then takes the CPU.
    context = replace(context, hardware=[make_trial("hardware=auto").hardware])
    watcher = Watcher()
    with running(cluster.address, gpus_per_slot=0.5, cpus_per_slot=0.5) as executor:
        assert executor.num_slots(context) == 2
        executor.execute(Listed(jobs(make_trials(4))), context=context, observer=watcher, interruption=Asked())
    names = set(watcher.slots.values())
    assert {name.partition(" ")[2] for name in names} <= {"cuda:0", "cuda:0 (2)"}
    assert set(stored(context).values()) == {"completed"}


@pytest.mark.verify
def test_a_machine_lost_in_mid_sweep_costs_no_trial_and_one_that_joins_is_used(
    cluster: Cluster, context: Context, make_trials: MakeTrials, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Endless(jobs(make_trials(2000, num_steps=1000)))
    (machine,) = cluster.worker_nodes
    plot = deque(
        [
            (lambda: len(set(watcher.slots.values())) == 2, lambda: cluster.remove_node(machine, allow_graceful=False)),
            (lambda: watcher.messages, lambda: (cluster.add_node(**MACHINE), watcher.slots.clear())),
            (lambda: len(set(watcher.slots.values())) == 2, lambda: setattr(source, "ends", True)),
        ]
    )

    def on_measured() -> None:
        if plot and plot[0][0]():
            plot.popleft()[1]()

    watcher = Watcher(on_measured=on_measured)
    with running(cluster.address) as executor:
        executor.execute(source, context=context, observer=watcher, interruption=Asked())
    assert not plot
    (message,) = watcher.messages
    assert "is lost, and its trial runs elsewhere" in message
    assert stored(context) == dict.fromkeys(source.given, "completed")
    assert watcher.finished_trials == Counter(source.given)
    assert leftovers(context) == []
    assert "raylet" not in capsys.readouterr().out


@pytest.mark.verify
def test_a_cluster_that_is_started_for_a_sweep_ends_with_it_and_leaves_nothing_in_the_home_folder(
    tmp_path: Path,
) -> None:
    words = ["task=quadratic", "optimizer=sgd", "hardware=cpu", "budget.num_steps=20", "seed=0"]
    command = [sys.executable, "-m", "optbench", "sweep", "executor=ray", "executor.address=local", *words]
    home = tmp_path / "home"
    home.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(home)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert len(list((tmp_path / "results/default/trials").glob("*.json"))) == 1
    assert not (home / ".ray").exists()


class Call:
    """A call of a method of a made-up actor, not answered yet."""

    def __init__(self, actor: "Actor", name: str) -> None:
        self.actor, self.name = actor, name


class Method:
    def __init__(self, actor: "Actor", name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Call:
        self._actor.orders.append((self._name, *arguments))
        if (react := self._actor.reactions.get(self._name)) is not None:
            self._actor.said.append(react(*arguments))
        return Call(self._actor, self._name)


class Actor:
    """A made-up actor, which says at once what it is to say to an order."""

    def __init__(self, reactions: Mapping[str, Callable[..., Any]]) -> None:
        self.reactions = {"open": lambda _: Place(host="somewhere", gpus=()), **reactions}
        self.orders: list[tuple[Any, ...]] = []
        self.said: deque[Any] = deque()

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)


class MadeUp:
    """A cluster of actors that are made up."""

    def __init__(self, *, cores: float = 2, **reactions: Callable[..., Any]) -> None:
        self.cores = cores
        self.reactions = reactions
        self.actors: list[Actor] = []
        self.num_killed = 0

    def machines(self) -> list[Mapping[str, float]]:
        return [{"CPU": self.cores}]

    def free(self) -> Mapping[str, float]:
        return {"CPU": 0.0}

    def start(self, shares: Mapping[str, float]) -> Actor:
        self.actors.append(Actor(self.reactions))
        return self.actors[-1]

    def events(self, actor: Actor) -> Call:
        return Call(actor, "events")

    def answers(self, asked: Iterable[Call], *, seconds: float) -> list[tuple[Call, Any]]:
        return [(call, call.actor.said.popleft()) for call in asked if call.actor.said]

    def end(self, actors: list[Actor], *, seconds: float) -> None:
        pass

    def kill(self, actor: Actor) -> None:
        self.num_killed += 1

    def close(self) -> None:
        pass


@contextmanager
def pretending(made_up: MadeUp, **changes: Any) -> Iterator[RayExecutor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "Cluster", lambda _: made_up)
        patch.setattr("optbench.executors.dispatch.SECONDS_UNTIL_ASKED_AGAIN", 0.0)
        with running(None, **changes) as executor:
            yield executor


def finished(job: Job, status: Status = Status.COMPLETED) -> list[Any]:
    trial_id = job.trial.id
    started = Started(trial_id=trial_id, environment={})
    return [started, Finished(trial_id=trial_id, status=status, summary={}, timing={})]


LOST = Lost(reason="its machine has died", was_unfit=False)


def test_a_trial_that_is_lost_too_often_has_crashed_and_the_others_go_on(
    context: Context, make_trials: MakeTrials
) -> None:
    fatal, harmless = make_trials(2)
    cluster = MadeUp(give=lambda job: LOST if job.trial is fatal else finished(job))
    watcher = Watcher()
    with pretending(cluster, max_lost=2) as executor:
        source = Listed(jobs([fatal, harmless]))
        executor.execute(source, context=context, observer=watcher, interruption=Asked())
    assert sorted(watcher.statuses) == ["completed", "crashed"]
    record = Store(Path(context.results), context.sweep).read(fatal.id)
    assert record is not None
    assert "was lost 3 times" in record["summary"]["reason"]
    assert [" runs elsewhere: " in message for message in watcher.messages] == [True, True, False]
    assert not lease.held(Path(context.results) / context.sweep)


def test_a_lost_trial_is_no_crash_while_another_process_is_at_it_or_once_it_is_stored(
    context: Context, make_trials: MakeTrials
) -> None:
    (trial,) = make_trials(1)
    folder = Path(context.results) / context.sweep
    taken = lease.take(folder, trial.id)
    assert taken is not None
    num_given = 0

    def give(job: Job) -> Any:
        nonlocal num_given
        num_given += 1
        if num_given == 3:
            taken.release()
            Store(folder.parent, folder.name).path(trial.id).parent.mkdir(parents=True)
            Store(folder.parent, folder.name).path(trial.id).touch()
        return LOST if num_given < 5 else finished(job)

    watcher = Watcher()
    with pretending(MadeUp(give=give), max_lost=0) as executor:
        executor.execute(Listed(jobs([trial])), context=context, observer=watcher, interruption=Asked())
    assert watcher.statuses == [Status.COMPLETED]


def test_what_another_process_is_at_is_asked_for_again(context: Context, make_trials: MakeTrials) -> None:
    (trial,) = make_trials(1)
    answers = deque([[Held(trial_id=trial.id)], [Held(trial_id=trial.id)]])
    cluster = MadeUp(give=lambda job: answers.popleft() if answers else finished(job))
    watcher = Watcher()
    with pretending(cluster) as executor:
        executor.execute(Listed(jobs([trial])), context=context, observer=watcher, interruption=Asked())
    assert watcher.statuses == [Status.COMPLETED]


@pytest.mark.parametrize(("is_store", "kind"), [(True, OSError), (False, UsageError)])
def test_a_sweep_that_cannot_go_on_says_why(
    context: Context, make_trials: MakeTrials, is_store: bool, kind: type[Exception]
) -> None:
    cluster = MadeUp(give=lambda _: [Refused(text="no space left", is_store=is_store)])
    with pretending(cluster) as executor, pytest.raises(kind, match="no space left"):
        executor.execute(Listed(jobs(make_trials(1))), context=context, observer=Watcher(), interruption=Asked())


def test_a_machine_that_does_not_fit_ends_the_sweep_before_anything_trains(
    context: Context, make_trials: MakeTrials
) -> None:
    cluster = MadeUp(open=lambda _: Refused(text="node7 does not see the folder"))
    with pretending(cluster) as executor, pytest.raises(UsageError, match="node7 does not see"):
        executor.check(make_trials(1), context)
    cluster = MadeUp(open=lambda _: Lost(reason="No module named 'optbench'", was_unfit=True))
    with pretending(cluster) as executor, pytest.raises(UsageError, match="No module named 'optbench'"):
        executor.check(make_trials(1), context)
    assert len(cluster.actors) == 1


def test_slots_that_are_lost_before_they_are_there_are_tried_again_a_few_times(
    context: Context, make_trials: MakeTrials
) -> None:
    cluster = MadeUp(open=lambda _: LOST)
    with pretending(cluster) as executor, pytest.raises(UsageError, match="its machine has died"):
        executor.check(make_trials(1), context)
    assert len(cluster.actors) == ray.MAX_FAILED_STARTS


def test_a_check_goes_on_elsewhere_when_its_machine_is_lost(context: Context, make_trials: MakeTrials) -> None:
    answers = deque([LOST, [Checked(warnings=["mind the rate"], error=None)]])
    with pretending(MadeUp(check=lambda _: answers.popleft())) as executor:
        assert executor.check(make_trials(1), context) == ["mind the rate"]


def test_what_does_not_stop_within_the_grace_is_killed(context: Context, make_trials: MakeTrials) -> None:
    (trial,) = make_trials(1)
    asked = Asked()

    def give(job: Job) -> list[Any]:
        asked.is_requested = True
        return finished(job)[:1]

    cluster = MadeUp(give=give, kill=lambda: finished(Job(trial=trial), Status.PREEMPTED)[1:])
    hasty = replace(context, limits=replace(context.limits, grace_seconds=0.0))
    watcher = Watcher()
    with pretending(cluster) as executor:
        executor.execute(Listed(jobs([trial])), context=hasty, observer=watcher, interruption=asked)
    assert [order[0] for order in cluster.actors[0].orders] == ["open", "give", "preempt", "kill"]
    assert watcher.statuses == [Status.PREEMPTED]


def test_an_urgent_wish_to_stop_is_not_kept_waiting(context: Context, make_trials: MakeTrials) -> None:
    asked = Asked(is_urgent=True)
    with pretending(MadeUp()) as executor:
        executor.execute(Listed(jobs(make_trials(1))), context=context, observer=Watcher(), interruption=asked)


def test_a_trial_that_is_not_worth_going_on_with_is_stopped(context: Context, make_trials: MakeTrials) -> None:
    (trial,) = make_trials(1)
    row = Measurement(step=0, seconds=0.0, lr=0.1, gradient_evaluations=0, metrics={})
    cluster = MadeUp(
        give=lambda job: [*finished(job)[:1], Measured(trial_id=job.trial.id, measurement=row)],
        stop=lambda *_: finished(Job(trial=trial), Status.PRUNED)[1:],
    )
    with pretending(cluster) as executor:
        executor.execute(Pruning(jobs([trial])), context=context, observer=Watcher(), interruption=Asked())
    assert cluster.actors[0].orders[-1] == ("stop", trial.id, Status.PRUNED)


def test_there_are_no_more_slots_than_trials_or_room(context: Context, make_trials: MakeTrials) -> None:
    for cores, num_trials, expected in ((3, 8, 3), (8, 2, 2)):
        cluster = MadeUp(cores=cores, give=finished)
        with pretending(cluster) as executor:
            source = Listed(jobs(make_trials(num_trials)))
            executor.execute(source, context=context, observer=Watcher(), interruption=Asked())
        assert len(cluster.actors) == cluster.num_killed == expected


def test_no_room_on_any_machine_is_said_at_once_unless_slots_are_to_be_waited_for(
    context: Context, make_trials: MakeTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretending(MadeUp(cores=2), cpus_per_slot=4) as executor, pytest.raises(UsageError, match="4 CPU"):
        executor.prepare(context)
    monkeypatch.setattr(ray, "SECONDS_UNTIL_SAID", 0.0)
    cluster = MadeUp(cores=2, open=lambda _: [], give=finished)
    asked = Asked()

    class Impatient(Watcher):
        def message(self, text: str) -> None:
            super().message(text)
            asked.is_requested = True

    watcher = Impatient()
    with pretending(cluster, cpus_per_slot=4, num_slots=1) as executor:
        executor.execute(Listed(jobs(make_trials(1))), context=context, observer=watcher, interruption=asked)
    assert watcher.messages == ["executor=ray: waiting for 4 CPU on one machine; free are 0 CPU."]


def test_slots_have_names_of_their_own(context: Context, make_trials: MakeTrials) -> None:
    watcher = Watcher()
    cluster = MadeUp(cores=2, open=lambda _: Place(host="node7", gpus=("0",)), give=finished)
    with pretending(cluster) as executor:
        source = Listed(jobs(make_trials(4)))
        executor.execute(source, context=context, observer=watcher, interruption=Asked())
    assert set(watcher.slots.values()) == {"node7 cuda:0", "node7 cuda:0 (2)"}


@pytest.mark.parametrize(
    "changes",
    [{"num_slots": 0}, {"max_lost": -1}, {"gpus_per_slot": 1.5}, {"cpus_per_slot": -1}, {"gpus_per_slot": "half"}],
    ids=str,
)
def test_a_setting_out_of_its_range_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"executor.{next(iter(changes))}"), running(None, **changes):
        pass


def test_without_ray_the_extra_is_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with running(None) as executor, pytest.raises(UsageError, match=r"pip install 'optbench\[ray\]'"):
        executor.prepare(context)


def test_a_machine_without_the_results_folder_or_with_another_optbench_is_named(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optbench.executors.remote.SECONDS_UNTIL_SEEN", 0.0)
    setting = Setting(context=context, environment={}, version=__version__, path=(), probe=str(tmp_path / "absent"))
    answer = RemoteSlot().open(setting)
    assert isinstance(answer, Refused)
    assert f"does not see {context.results}" in answer.text
    answer = RemoteSlot().open(replace(setting, version="0.0.1"))
    assert isinstance(answer, Refused)
    assert "this is optbench 0.0.1" in answer.text
