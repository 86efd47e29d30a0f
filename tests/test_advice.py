"""What the authors of an optimizer advise against is said, and not refused."""

import pytest

from optbench.advice import against
from optbench.errors import UsageError
from optbench.run import check
from tests.conftest import MakeTrial


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer=prodigy", "optimizer.lr=0.001"], ["lr=0.001", "advise 1"]),
        (["optimizer=prodigy", "schedule=step"], ["schedule=step", "constant or cosine"]),
        (["optimizer=prodigy", "schedule.warmup=0.1"], ["schedule.warmup without optimizer.safeguard_warmup=true"]),
        (["optimizer=dadapt_adam", "optimizer.lr=0.001"], ["lr=0.001"]),
        (["optimizer=schedulefree_adamw", "schedule=cosine"], ["schedule=cosine"]),
        (["optimizer=schedulefree_sgd", "schedule=linear"], ["schedule=linear"]),
        (["optimizer=prodigy", "param_groups=mup"], ["one rate for all groups"]),
    ],
)
def test_what_authors_advise_against_is_said_with_their_source(
    overrides: list[str], words: list[str], make_trial: MakeTrial
) -> None:
    (sentence,) = against(make_trial(*overrides))
    assert "https://" in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=prodigy"],
        ["optimizer=prodigy", "schedule=cosine"],
        ["optimizer=prodigy", "schedule.warmup=0.1", "optimizer.safeguard_warmup=true"],
        ["optimizer=schedulefree_adamw"],
        ["optimizer=prodigy", "param_groups=no_decay"],
        ["optimizer=adamw", "schedule=step", "optimizer.lr=10.0"],
    ],
)
def test_nothing_is_said_where_nothing_is_advised_against(overrides: list[str], make_trial: MakeTrial) -> None:
    assert against(make_trial(*overrides)) == []


def test_a_warm_up_from_0_is_refused_where_it_breaks_the_optimizer(make_trial: MakeTrial) -> None:
    with pytest.raises(UsageError, match=r"dadapt_sgd: the first step of schedule=cosine has rate 0, which breaks it"):
        check(make_trial("optimizer=dadapt_sgd", "schedule=cosine", "schedule.warmup=0.1"))
    check(make_trial("optimizer=dadapt_sgd", "schedule=cosine"))


@pytest.mark.parametrize("override", ["schedule=cosine", "schedule.warmup=0.1"])
def test_a_schedule_over_a_rate_that_the_optimizer_chooses_is_refused(override: str, make_trial: MakeTrial) -> None:
    with pytest.raises(UsageError, match=r"chooses its rate by itself \(optimizer.lr is null\)"):
        check(make_trial("optimizer=adafactor_transformers", override))
