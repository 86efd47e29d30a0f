"""The trials of several sweeps as one: merged, filtered, and with what was found on the way."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from optbench import filters
from optbench.cost import Cost
from optbench.costs import Costs
from optbench.errors import UsageError
from optbench.filters import Filter
from optbench.measurement import Status
from optbench.store import Store, sweeps

NUM_LISTED = 5  # names of strange files
NUM_LOOKED_AT = 20  # files, to tell whose they are


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What stores hold of what was asked.

    Attributes:
        stores: in the order in which they were named.
        index: a row for each trial, with the columns of `Store.index`, and `sweep`.
        costs: of steps, those of the stores named first before others.
        remarks: what is not in the index, and why, a sentence each.
        store_of: where each trial is, by its id.
        is_filtered: whether conditions were asked for.
    """

    stores: Sequence[Store]
    index: pd.DataFrame
    costs: Sequence[Cost]
    remarks: Sequence[str]
    store_of: Mapping[str, Store]
    is_filtered: bool = False
    _overrides: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def reader(self) -> "Reader":
        """What reads the records of the trials."""
        return Reader(store_of=self.store_of)

    def overrides(self, trial_id: str) -> Sequence[str] | None:
        """What was typed for the trial; None where another command has followed that did not ask for it."""
        return self._overrides.get(trial_id)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads the records of trials, in this process or in another.

    Attributes:
        store_of: where each trial is, by its id.
    """

    store_of: Mapping[str, Store]

    def __call__(self, trial_id: str) -> dict[str, Any] | None:
        """The record of a trial; None where its file is damaged or gone."""
        return self.store_of[trial_id].read(trial_id)


def gather(
    folders: Sequence[Path],
    *,
    everything: bool = False,
    conditions: Sequence[Filter] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Gathered:
    """The trials in these folders.

    Args:
        folders: results folders, or sweeps in one.
        everything: every stored trial, not those of the last command of each sweep alone.
        conditions: that a trial has to fulfil.
        progress: told what is being read.

    Raises:
        UsageError: a folder is not there or holds no results, or no trial is left.
    """
    stores = list({store.folder.resolve(): store for folder in folders for store in _stores(folder)}.values())
    frames, remarks = [], []
    overrides: dict[str, Sequence[str]] = {}
    for store in stores:
        progress(f"reading {store.folder}")
        plan = _plan(store)
        index = store.index()
        index = index[index["status"] != Status.PREEMPTED]  # these have no result yet
        asked = list(plan["ids"]) if plan else []
        overrides = {**dict.fromkeys(asked, plan["overrides"] if plan else []), **overrides}
        remarks += _remarks(store, index, asked=asked, everything=everything)
        order = {trial_id: place for place, trial_id in enumerate(asked)}
        if asked and not everything:
            index = index[index["id"].isin(asked)]
        places = index["id"].map(order).fillna(len(order))
        frames.append(index.iloc[places.argsort(kind="stable")].assign(sweep=store.sweep))
    merged, twice = _merged(frames)
    if merged.empty:
        raise UsageError("\n".join([f"{_named(folders)}: no trial has a result yet.", *remarks]))
    index = filters.apply(conditions, merged)
    remarks += twice
    if conditions:
        lines = " ".join(one.line for one in conditions)
        remarks.append(f"{len(index)} of {len(merged)} trials fulfil {lines}.")
    if any(one.key == "status" for one in conditions):
        remarks.append("Filtered by status: what failed, what is best and where grids end are of these trials alone.")
    owners: dict[str, Store] = {}
    for store, frame in zip(stores, frames, strict=True):
        for trial_id in frame["id"]:
            owners.setdefault(trial_id, store)
    return Gathered(
        stores=stores,
        index=index,
        costs=[cost for store in stores for cost in Costs(store).all()],
        remarks=remarks,
        store_of=owners,
        is_filtered=bool(conditions),
        _overrides=overrides,
    )


def _plan(store: Store) -> dict[str, Any] | None:
    """The plan of the last command.

    Raises:
        UsageError: the files are not optbench's; reading them as results would set them aside.
    """
    try:
        plan = store.read_plan()
        if plan is not None and not isinstance(plan["ids"], list):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise UsageError(f"{store.folder / 'plan.json'}: not written by optbench. Name another folder.") from error
    files = list(itertools.islice(sorted((store.folder / "trials").glob("*.json")), NUM_LOOKED_AT))
    if plan is None and files and not any(b'"sha256": "' in path.read_bytes() for path in files):
        raise UsageError(f"{store.folder / 'trials'}: these files were not written by optbench. Name another folder.")
    return plan


def _merged(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[str]]:
    """All rows, each trial once: that of the store named first."""
    # A column without any figure has no type yet, and would take that of the others away.
    filled = [frame.dropna(axis="columns", how="all") for frame in frames if not frame.empty]
    if not filled:
        return pd.DataFrame(), []
    together = pd.concat(filled, ignore_index=True)
    twice = together["id"].duplicated(keep="first")
    if not twice.any():
        return together, []
    again = together[together["id"].duplicated(keep=False)]
    num_trials = again["id"].nunique()
    others = int((again.groupby("id")["status"].nunique() > 1).sum())
    ended = f" {others} of them ended otherwise there." if others else ""
    remark = f"{num_trials} trial(s) are in several of the folders: the result of the folder named first counts.{ended}"
    return together[~twice].reset_index(drop=True), [remark]


def _remarks(store: Store, index: pd.DataFrame, *, asked: Sequence[str], everything: bool) -> list[str]:
    """What is not in the index, and what to do about it."""
    found = []
    there = set(index["id"])
    if missing := len(set(asked) - there):
        found.append(
            f"{store.folder}: {missing} of {len(asked)} trials that were asked for have no result yet; "
            "the same command runs them."
        )
    if asked and not everything and (others := len(there - set(asked))):
        found.append(f"{store.folder}: {others} trial(s) of earlier commands are left out; --all takes them in.")
    set_aside = sorted(path.name for path in (store.folder / "quarantine").glob("*"))
    if set_aside:
        found.append(
            f"{store.folder / 'quarantine'}: {len(set_aside)} damaged file(s) were set aside "
            f"({', '.join(set_aside[:NUM_LISTED])}); the command of their sweep runs those trials again."
        )
    return found


def _stores(folder: Path) -> list[Store]:
    """The sweeps of a folder.

    Raises:
        UsageError: it is not there, or holds none.
    """
    if not folder.exists():
        raise UsageError(f"{folder}: no such folder. `optbench sweep optimizer=lion,adamw` makes results/default.")
    if not folder.is_dir():
        raise UsageError(f"{folder}: a file. Name a results folder, or a sweep in one, such as results/default.")
    if found := sweeps(folder):
        return found
    near = [place for place in (folder.parent, folder / "results") if place.is_dir() and sweeps(place)]
    hint = f" Did you mean {near[0]}?" if near else " `optbench sweep optimizer=lion,adamw` makes some."
    names = sorted(path.name for path in itertools.islice(folder.iterdir(), 1000))
    if not names:
        raise UsageError(f"{folder}: empty, no results here.{hint}")
    listed = ", ".join(names[:NUM_LISTED]) + (f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else "")
    raise UsageError(
        f"{folder}: no results here. It holds {listed}, but no folder with a plan.json or trials/, as sweeps are.{hint}"
    )


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))
