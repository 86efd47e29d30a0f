"""What a YAML file declares: what is asked, what is said about it, and the mistakes in both."""

from typing import Any

import pytest

from optbench.component import optimizer_component
from optbench.errors import UsageError
from optbench.optim.build import check
from tests.handmade import trial

PLAIN: dict[str, Any] = {"name": "mine", "_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
COMPANION = {"name": "adamw", "_target_": "torch.optim.AdamW", "lr": 0.1}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"capabilities": 5}, "optimizer.capabilities=5: expected a list"),
        ({"capabilities": "closure"}, "expected a list, as in .closure."),
        ({"capabilities": ["closures"]}, "unknown capability 'closures'.*Did you mean 'closure'"),
        ({"limits": {"bf16": "why"}}, "unknown limit 'bf16'"),
        ({"limits": ["bf16_reload"]}, "optimizer.limits=.*expected a mapping"),
        ({"convention": "averages"}, "optimizer.convention='averages': expected a mapping"),
        ({"companion": COMPANION}, "go together"),
        ({"capabilities": ["matrices_only"]}, "go together"),
        ({"capabilities": ["matrices_only"], "companion": "adamw"}, "optimizer.companion='adamw': expected a mapping"),
        (
            {"capabilities": ["matrices_only"], "companion": {**COMPANION, "capabilities": ["train_eval"]}},
            "a companion is a plain optimizer",
        ),
        ({"advised": {"lr": 0.1}}, "optimizer.advised.lr=0.1: expected a list"),
        ({"advised": {"lr": [0.1]}}, "give the lowest and the highest"),
        ({"advised": {"schedule": "cosine"}}, "optimizer.advised.schedule='cosine': expected a list"),
        ({"advised": {"schedules": []}}, "Did you mean 'optimizer.advised.schedule'"),
        ({"follow": {"momentum": "lrr"}}, "unknown key 'lrr' in optimizer.follow.*Did you mean 'lr'"),
        ({"follow": {"lr_1d": "lr"}}, "unknown key 'lr_1d' in optimizer.follow"),
        ({"period": "momentums"}, "unknown argument 'momentums' for optimizer.period.*Did you mean 'momentum'"),
        ({"period": 10}, "optimizer.period=10: expected a list"),
    ],
)
def test_a_mistake_in_what_a_file_declares_is_explained(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        optimizer_component({**PLAIN, **declared})


@pytest.mark.parametrize(
    "declared",
    [
        {"optimizer.capabilities": ["train_eval"]},
        {"optimizer.capabilities": ["extra_pass"]},
        {"optimizer.follow": {"weight_decay": "lr"}},
        {"optimizer.matrices": {"rank": 4}},
    ],
)
def test_what_changes_the_training_is_part_of_what_is_asked(declared: dict[str, Any]) -> None:
    assert trial(declared).id != trial().id


@pytest.mark.parametrize(
    "said",
    [
        {"optimizer.capabilities": ["lr_free"]},
        {"optimizer.limits": {"bf16_reload": "why"}},
        {"optimizer.state_bytes_per_parameter": 8.0},
        {"optimizer.advised": {"lr": [0.1, 1.0], "because": "so", "source": "https://example.org"}},
        {"optimizer.rule": "adamw", "optimizer.departs": []},
        {"optimizer.preset": {"size": "7B"}},
        {"optimizer.period": "lr"},
    ],
)
def test_what_is_only_said_about_an_optimizer_is_not(said: dict[str, Any]) -> None:
    assert trial(said).id == trial().id


def test_a_companion_is_refused_like_any_other() -> None:
    companion = {"name": "lamb", "_target_": "bitsandbytes.optim.LAMB8bit", "lr": 0.1}
    muon = {"name": "muon", "_target_": "torch.optim.Muon", "lr": 0.1, "capabilities": ["matrices_only"]}
    with pytest.raises(UsageError, match="LAMB8bit is refused"):
        check(optimizer_component({**muon, "companion": companion}))


@pytest.mark.parametrize(
    ("declared", "period"),
    [
        ({}, 1),
        ({"period": "gap", "gap": 200}, 200),
        ({"period": "gap", "gap": None}, 1),
        ({"period": "gap", "gap": 0}, 1),
        ({"period": "gap", "gap": 0.5}, 1),
        ({"period": "gap", "matrices": {"gap": 7}}, 7),
        ({"period": ["gap", "other"], "gap": 10, "other": 4}, 20),
    ],
)
def test_the_period_is_the_number_of_steps_that_the_arguments_give(declared: dict[str, Any], period: int) -> None:
    assert optimizer_component({**PLAIN, **declared}).period == period


def test_the_period_of_two_optimizers_holds_whole_periods_of_both() -> None:
    companion = {**COMPANION, "period": "gap", "gap": 4}
    declared = {"capabilities": ["matrices_only"], "companion": companion, "period": "gap", "gap": 6}
    assert optimizer_component({**PLAIN, **declared}).period == 12
