"""Parameter groups: who gets which hyperparameters, and what is said when a pattern is wrong."""

from typing import Any

import pytest
import torch
from torch import nn

from optbench.component import Component
from optbench.errors import UsageError
from optbench.optim.build import build, describe_groups
from optbench.optim.param_groups import hidden_matrices
from tests.conftest import MakeTrial, RunTrial
from tests.test_optimizers import optimizer

ADAMW: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}


class Block(nn.Module):
    """An embedding, a convolution, two hidden layers, norms and a head."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.first = nn.Conv1d(4, width, 1)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, 3)


def ordered(*groups: dict[str, Any]) -> Component:
    target = "optbench.optim.param_groups.ordered"
    return Component(name="patterns", target=target, arguments={"groups": list(groups)})


def mup(**arguments: Any) -> Component:
    return Component(name="mup", target="optbench.optim.param_groups.mup", arguments=arguments)


def values(model: nn.Module, built: torch.optim.Optimizer, key: str) -> dict[str, Any]:
    """A hyperparameter by the parameter's name."""
    by_id = {id(parameter): group[key] for group in built.param_groups for parameter in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


def test_biases_and_norms_are_spared_the_decay_and_nothing_else_is(make_trial: MakeTrial) -> None:
    model = Block()
    trial = make_trial("param_groups=no_decay", "optimizer.weight_decay=0.1")
    decay = values(model, build(trial.optimizer, model, param_groups=trial.param_groups), "weight_decay")
    spared = {name for name, value in decay.items() if value == 0.0}
    assert spared == {"first.bias", "norm.weight", "norm.bias", "up.bias", "head.bias"}
    assert {decay[name] for name in decay.keys() - spared} == {0.1}


def test_vectors_are_spared_the_decay(make_trial: MakeTrial) -> None:
    model = Block()
    trial = make_trial("param_groups=matrices_decay", "optimizer.weight_decay=0.1")
    decay = values(model, build(trial.optimizer, model, param_groups=trial.param_groups), "weight_decay")
    assert {name for name, value in decay.items() if value == 0.0} == {
        name for name, parameter in model.named_parameters() if parameter.ndim < 2
    }


def test_the_first_pattern_that_matches_wins() -> None:
    model = Block()
    groups = ordered(
        {"match": "head.*", "lr": 0.5}, {"match": "bias", "lr": 0.25}, {"match": ["*.weight"], "lr": 0.125}
    )
    rates = values(model, build(optimizer("torch.optim.AdamW", **ADAMW), model, param_groups=groups), "lr")
    assert rates["head.bias"] == rates["head.weight"] == 0.5
    assert rates["up.bias"] == 0.25
    assert rates["up.weight"] == rates["norm.weight"] == 0.125


def test_each_group_is_fully_stated_with_what_it_does_not_name() -> None:
    model = Block()
    groups = ordered({"match": "embedding", "lr_factor": 0.5, "betas": [0.5, 0.9]})
    built = build(optimizer("torch.optim.AdamW", **ADAMW), model, param_groups=groups)
    first, rest = describe_groups(built)
    assert (first["num_parameters"], first["lr"], first["betas"], first["weight_decay"]) == (28, 0.005, (0.5, 0.9), 0.1)
    assert (rest["lr"], rest["betas"], rest["weight_decay"]) == (0.01, (0.9, 0.999), 0.1)
    assert first["num_parameters"] + rest["num_parameters"] == sum(p.numel() for p in model.parameters())


def test_a_group_of_frozen_parameters_matches_nothing() -> None:
    model = Block()
    model.embed.requires_grad_(False)
    with pytest.raises(UsageError, match=r"embedding matches no trainable parameter.*\n.*Parameters: first\.weight"):
        build(optimizer("torch.optim.AdamW", **ADAMW), model, param_groups=ordered({"match": "embedding", "lr": 0.1}))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"match": "heads.*", "lr": 0.1}, r"heads\.\* matches no trainable parameter"),
        ({"match": "bias", "wd": 0.1}, r"unknown key 'param_groups.groups\[0\]\.wd'"),
        ({"match": "bias", "weight_decoy": 0.1}, "Did you mean 'param_groups.groups.0..weight_decay'"),
        ({"match": "bias", "lr": 0.1, "lr_factor": 0.1}, "lr is given twice"),
        ({"lr": 0.1}, "give `match`, one of bias, norm"),
        ({"match": ["bias", "nrom"], "lr": 0.1}, "nrom matches no trainable parameter"),
        ({"match": ["bias", 5], "lr": 0.1}, "expected patterns of names"),
        ({"match": 5, "lr": 0.1}, "match=5"),
        ({"match": "bias", "lr": "abc"}, "lr='abc': expected a number"),
        ({"match": "bias", "lr_factor": None}, "lr_factor=None: expected a number"),
        ({"match": "bias", "lr": -1.0}, "lr=-1.0: a rate is not below 0"),
    ],
)
def test_a_mistake_in_a_group_is_explained(group: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(optimizer("torch.optim.AdamW", **ADAMW), Block(), param_groups=ordered(group))


def test_a_wrong_pattern_shows_before_anything_trains(make_trial: MakeTrial) -> None:
    from optbench.run import check

    trial = make_trial("param_groups=patterns", "param_groups.groups=[{match: heads.*, lr: 0.1}]")
    with pytest.raises(UsageError, match="matches no trainable parameter"):
        check(trial)


def test_hidden_matrices_are_neither_embeddings_nor_the_first_or_last_layer() -> None:
    assert [name for name, _, hidden in hidden_matrices(Block()) if hidden] == ["up.weight", "down.weight"]


@pytest.mark.parametrize("compensate", [True, False])
@pytest.mark.parametrize("width", [6, 12, 48])
def test_mup_divides_the_rate_of_hidden_matrices_by_the_width_and_may_keep_their_shrink(
    width: int, compensate: bool
) -> None:
    model = Block(width)
    groups = mup(base_width=6, compensate_decay=compensate)
    built = build(optimizer("torch.optim.AdamW", **ADAMW), model, param_groups=groups)
    rates, decays = values(model, built, "lr"), values(model, built, "weight_decay")
    assert rates["up.weight"] == rates["down.weight"] == pytest.approx(0.01 * 6 / width)
    assert {rates[name] for name in rates.keys() - {"up.weight", "down.weight"}} == {0.01}
    shrink = rates["up.weight"] * decays["up.weight"]
    assert shrink == pytest.approx(0.001 if compensate else 0.001 * 6 / width)


@pytest.mark.parametrize("name", ["adamw_independent", "palm_adafactor", "adam"])
def test_mup_compensates_no_decay_that_is_not_times_lr(name: str, make_trial: MakeTrial) -> None:
    trial = make_trial(f"optimizer={name}", "optimizer.weight_decay=0.1", "param_groups=mup")
    with pytest.raises(UsageError, match=rf"{name}'s decay is .*\n.*param_groups.compensate_decay=false"):
        build(trial.optimizer, Block(), param_groups=trial.param_groups)
    plain = make_trial(f"optimizer={name}", "param_groups=mup", "param_groups.compensate_decay=false")
    build(plain.optimizer, Block(), param_groups=plain.param_groups)


def test_what_follows_a_hyperparameter_goes_along_with_it(make_trial: MakeTrial) -> None:
    """Vectors have a decay and a rate of their own in MARS; sparing them means that one too."""
    model = Block()
    trial = make_trial("optimizer=mars", "param_groups=no_decay", "optimizer.weight_decay=0.01")
    decays = values(model, build(trial.optimizer, model, param_groups=trial.param_groups), "weight_decay_1d")
    assert decays["norm.weight"] == decays["up.bias"] == 0.0
    assert decays["up.weight"] == 0.1
    (group,) = build(trial.optimizer, model, lr_factor=10.0).param_groups
    assert (group["lr"], group["lr_1d"]) == (pytest.approx(0.03), pytest.approx(0.03))
    assert group["lr_1d_factor"] == pytest.approx(1.0)


def test_mup_trains_and_says_what_each_group_had(run_trial: RunTrial) -> None:
    summary = run_trial("param_groups=mup", "param_groups.base_width=50", "budget.num_steps=20").summary
    hidden, rest = summary["param_groups"]
    assert (hidden["num_parameters"], hidden["lr"]) == (10_000, pytest.approx(0.0005))
    assert rest["lr"] == 0.001


@pytest.mark.parametrize(
    ("target", "group", "message"),
    [
        (
            "bitsandbytes.optim.AdamW8bit",
            {"match": "matrix", "min_8bit_size": 100},
            "does not take min_8bit_size for a",
        ),
        ("bitsandbytes.optim.AdamW", {"match": "bias", "amsgrad": True}, "amsgrad=True .* is refused"),
    ],
)
def test_a_key_that_the_class_never_reads_from_a_group_is_refused(
    target: str, group: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build(optimizer(target, lr=0.1), Block(), param_groups=ordered(group))


def test_lr_scaling_multiplies_a_rate_of_a_group_too() -> None:
    model = Block()
    groups = ordered({"match": "bias", "lr": 0.5}, {"match": "norm", "lr_factor": 0.1})
    rates = values(model, build(optimizer("torch.optim.SGD", lr=0.1), model, param_groups=groups, lr_factor=2.0), "lr")
    assert rates["up.bias"] == 1.0
    assert rates["norm.weight"] == pytest.approx(0.02)
    assert rates["up.weight"] == 0.2


def test_lr_scaling_without_a_rate_shows_before_anything_trains(make_trial: MakeTrial) -> None:
    from optbench.run import check

    scaling = ["lr_scaling.rule=linear", "lr_scaling.base_batch_size=8"]
    with pytest.raises(UsageError, match="has no lr to scale"):
        check(make_trial("optimizer=adafactor_transformers", *scaling))


def test_a_group_of_muon_may_set_what_one_half_alone_has(make_trial: MakeTrial) -> None:
    trial = make_trial("optimizer=muon")
    model = Block()
    build(trial.optimizer, model, param_groups=ordered({"match": "bias", "betas": [0.5, 0.9]}))
    build(trial.optimizer, model, param_groups=ordered({"match": "up.weight", "momentum": 0.5}))
    with pytest.raises(UsageError, match="AdamW does not take momentum for a single group"):
        build(trial.optimizer, model, param_groups=ordered({"match": "bias", "momentum": 0.5}))


@pytest.mark.parametrize("value", [0, -5])
def test_a_rank_below_1_is_refused(value: int, make_trial: MakeTrial) -> None:
    with pytest.raises(UsageError, match=rf"optimizer.matrices.rank={value}: it must be above 0"):
        build(make_trial("optimizer=galore", f"optimizer.matrices.rank={value}").optimizer, Block())


def test_muon_takes_the_hidden_matrices_and_its_companion_the_rest(make_trial: MakeTrial) -> None:
    model = Block()
    trial = make_trial("optimizer=muon", "optimizer.lr=0.5", "optimizer.companion.lr=0.25")
    rates = values(model, build(trial.optimizer, model), "lr")
    assert {name for name, rate in rates.items() if rate == 0.5} == {"up.weight", "down.weight"}
    assert {rate for name, rate in rates.items() if name not in ("up.weight", "down.weight")} == {0.25}


def test_groups_of_muon_follow_the_patterns_in_both_halves(make_trial: MakeTrial) -> None:
    model = Block()
    trial = make_trial("optimizer=muon", "optimizer.lr=0.5", "optimizer.companion.lr=0.25")
    groups = ordered({"match": ["up.*", "head.*"], "lr_factor": 0.1})
    rates = values(model, build(trial.optimizer, model, param_groups=groups), "lr")
    assert rates["up.weight"] == pytest.approx(0.05)
    assert rates["down.weight"] == 0.5
    assert rates["head.weight"] == rates["up.bias"] == pytest.approx(0.025)
    assert rates["embed.weight"] == 0.25


def test_a_model_without_hidden_matrices_is_refused(make_trial: MakeTrial) -> None:
    from optbench.run import check

    with pytest.raises(UsageError, match=r"muon trains hidden matrices alone, and this task's model has none"):
        check(make_trial("optimizer=muon", "task=quadratic"))


@pytest.mark.parametrize(("rule", "rate"), [("linear", 0.008), ("sqrt", 0.004)])
def test_the_rate_is_scaled_to_the_batch_size(rule: str, rate: float, run_trial: RunTrial) -> None:
    overrides = [
        "optimizer.lr=0.002",
        "task.batch_size=256",
        f"lr_scaling.rule={rule}",
        "lr_scaling.base_batch_size=64",
    ]
    result = run_trial(*overrides, "budget.num_steps=2")
    assert result.curve["lr"][-1] == pytest.approx(rate)
    assert result.summary["param_groups"][0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lr_scaling.rule=linear"], "give lr_scaling.base_batch_size"),
        (["lr_scaling.rule=cubic", "lr_scaling.base_batch_size=64"], "unknown value 'cubic' for lr_scaling.rule"),
        (["lr_scaling.rule=sqrt", "lr_scaling.base_batch_size=0"], "lr_scaling.base_batch_size=0: it must be above 0"),
        (["lr_scaling.rule=sqrt", "lr_scaling.base_batch_size=8", "task=saddle"], "saddle has no task.batch_size"),
        (["max_grad_norm=0.0"], "max_grad_norm=0.0: it must be above 0"),
        (["max_grad_norm=big"], "max_grad_norm='big': expected float or null"),
    ],
)
def test_a_mistake_in_scaling_or_clipping_is_explained(
    overrides: list[str], message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UsageError, match=message):
        make_trial(*overrides)


def test_what_came_later_enters_an_id_only_where_it_is_given(make_trial: MakeTrial) -> None:
    plain = make_trial("task=quadratic_deep").id
    given = [
        make_trial("task=quadratic_deep", override).id
        for override in ("max_grad_norm=1.0", "max_grad_norm=2.0", "param_groups=mup")
    ]
    assert len({plain, *given}) == 4
    assert make_trial("task=quadratic_deep", "max_grad_norm=null").id == plain
