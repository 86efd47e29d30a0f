"""Rules against libraries: the same to 1e-12 over 200 recorded gradients, or the formula by which they part."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor

from optbench.component import optimizer_component
from optbench.optim.rules import RULES, Rule, State
from optbench.parity import Comparison, Declared, OfLibrary, OfRule, Tape, compare, hyperparameters, record
from optbench.schedule import Schedule, constant, cosine

CONSTANT = constant(warmup=0.0)
COSINE = cosine(final_factor=0.0, warmup=0.05)
CONF = Path(__file__).parent.parent / "conf" / "optimizer"

ADAM = {"lr": 0.001, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
WITHOUT_DECAY = {key: value for key, value in ADAM.items() if key != "weight_decay"}
ADAFACTOR = {"eps": (1e-30, 0.001), "clip_threshold": 1.0, "decay_rate": -0.8, "weight_decay": 0.1, "beta1": None}
RELATIVE = {"lr": None, "scale_parameter": True, "relative_step": True, "warmup_init": False}
PRODIGY = {"lr": 1.0, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "beta3": None}

# What the files in conf/ leave out: every switch, and decay, under a schedule that starts at rate 0.
# (rule, class, its arguments)
LIBRARIES = [
    ("sgd", "torch.optim.SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("sgd", "torch.optim.SGD", {"lr": 0.1, "dampening": 0.5}),  # PyTorch damps nothing where there is no momentum
    ("sgd", "torch.optim.SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("sgdw", "pytorch_optimizer.SGDW", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("sgdw", "pytorch_optimizer.SGDW", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("sgdw", "pytorch_optimizer.SGDW", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "weight_decouple": False}),
    (
        "adagrad",
        "torch.optim.Adagrad",
        {"lr": 0.01, "lr_decay": 0.1, "eps": 1e-6, "weight_decay": 0.1, "initial_accumulator_value": 0.1},
    ),
    (
        "rmsprop",
        "torch.optim.RMSprop",
        {"lr": 0.01, "alpha": 0.99, "eps": 1e-6, "weight_decay": 0.1, "momentum": 0.9, "centered": True},
    ),
    ("adadelta", "torch.optim.Adadelta", {"lr": 1.0, "rho": 0.95, "eps": 1e-6, "weight_decay": 0.1}),
    ("adam", "torch.optim.Adam", {**ADAM, "amsgrad": True, "decoupled_weight_decay": True}),
    ("amsgrad", "torch.optim.Adam", {**ADAM, "amsgrad": True}),
    ("adamw", "torch.optim.AdamW", {**ADAM, "amsgrad": True}),
    ("adamax", "torch.optim.Adamax", ADAM),
    ("radam", "torch.optim.RAdam", {**ADAM, "decoupled_weight_decay": True}),
    ("adafactor_torch", "torch.optim.Adafactor", {"lr": 0.1, "eps": (1e-8, 0.01), "d": 2.0, "weight_decay": 0.1}),
    ("adafactor", "transformers.optimization.Adafactor", {**ADAFACTOR, **RELATIVE}),
    ("adafactor", "transformers.optimization.Adafactor", {**ADAFACTOR, **RELATIVE, "warmup_init": True, "beta1": 0.9}),
    (
        "adafactor",
        "transformers.optimization.Adafactor",
        {**ADAFACTOR, "lr": 0.001, "scale_parameter": False, "relative_step": False, "warmup_init": False},
    ),
    ("lion", "lion_pytorch.Lion", {"lr": 0.001, "betas": (0.9, 0.99), "weight_decay": 0.1}),
    (
        "lion",
        "lion_pytorch.Lion",
        {"lr": 0.001, "betas": (0.95, 0.98), "weight_decay": 0.001, "decoupled_weight_decay": True},
    ),
    ("signum", "pytorch_optimizer.SignSGD", {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.1}),
    (
        "signum",
        "pytorch_optimizer.SignSGD",
        {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.1, "weight_decouple": False},
    ),
    ("prodigy", "prodigyopt.Prodigy", {**PRODIGY, "use_bias_correction": True, "safeguard_warmup": True}),
    ("prodigy", "prodigyopt.Prodigy", {**PRODIGY, "decouple": False, "beta3": 0.9, "d0": 1e-5, "d_coef": 2.0}),
    ("prodigy", "prodigyopt.Prodigy", {**PRODIGY, "growth_rate": 1.02, "slice_p": 11}),
]
# Rules without a library here: own optimizers, which the files in conf/ compare, and identities below.
WITHOUT_LIBRARY = {"adam_tf", "adam_uncorrected", "adamw_fixed", "adamw_independent", "sgdw_independent"} | {
    "nesterov_lookahead",  # torch.optim.SGD under a constant rate
    "nadam",  # torch.optim.NAdam, but for a rounding
}


def of_library(target: str, schedule: Schedule = CONSTANT, **arguments: Any) -> OfLibrary:
    pytest.importorskip(target.partition(".")[0])
    name = target.rpartition(".")[2].lower()
    optimizer = optimizer_component({"name": name, "_target_": target, **arguments})
    return OfLibrary(optimizer=optimizer, schedule=schedule)


def of_rule(name: str, schedule: Schedule = CONSTANT, **values: Any) -> OfRule:
    return OfRule(rule=RULES[name], hyperparameters=values, schedule=schedule)


def first_steps(number: int) -> Tape:
    return replace(record(), grads=record().grads[:number])


def worst(comparison: Comparison) -> float:
    return max(difference.relative for difference in comparison.differences)


@pytest.mark.parametrize(
    ("name", "target", "arguments"), LIBRARIES, ids=[f"{rule}-{number}" for number, (rule, *_) in enumerate(LIBRARIES)]
)
def test_a_rule_is_its_library_for_200_steps_to_1e_12(name: str, target: str, arguments: dict[str, Any]) -> None:
    library = of_library(target, COSINE, **arguments)
    rule = of_rule(name, COSINE, **hyperparameters(RULES[name], library.optimizer))
    comparison = compare(library, rule, record())
    assert comparison.parts_at is None, comparison.differences


def test_every_rule_has_a_library_or_is_one_of_those_known_to_have_none() -> None:
    assert {name for name, *_ in LIBRARIES} | WITHOUT_LIBRARY == set(RULES)
    assert all(rule.name == name for name, rule in RULES.items())


# The files in conf/.


def files_with(key: str) -> dict[str, Any]:
    """What each file that has the key gives for it."""
    files = {path.stem: yaml.safe_load(path.read_text()) or {} for path in sorted(CONF.glob("*.yaml"))}
    return {name: config[key] for name, config in files.items() if key in config}


def declared(name: str, **arguments: Any) -> Declared:
    """The optimizer of a file, with these arguments in place of its own."""
    optimizer = OmegaConf.create({"optimizer": {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **arguments}})
    schedule = {"name": "constant", "_target_": "optbench.schedule.constant", "warmup": 0.0}
    found = Declared.from_config({**OmegaConf.to_container(optimizer, resolve=True), "schedule": schedule})
    pytest.importorskip(found.optimizer.target.partition(".")[0])
    return found


@pytest.mark.parametrize("name", files_with("rule"))
def test_an_optimizer_in_conf_is_its_rule_or_parts_from_it_where_its_file_says(name: str) -> None:
    at_defaults, with_decay = declared(name), declared(name, weight_decay=0.1)
    found = [
        compare(one.of_library, one.of_rule, tape).parts_at
        for one, tape in ((at_defaults, record()), (with_decay, first_steps(20)))
    ]
    documented = at_defaults.departure("rule")
    if documented is None:
        assert found == [None, None]
    else:
        assert documented.step in found
        assert set(found) <= {None, documented.step}
        assert documented.because


@pytest.mark.parametrize(
    ("name", "relative", "step"),
    [
        (name, entry["from"], entry["step"])
        for name, entries in files_with("departs").items()
        for entry in entries
        if entry["from"] != "rule"
    ],
)
def test_an_optimizer_in_conf_parts_from_its_relatives_where_its_file_says(name: str, relative: str, step: int) -> None:
    one, another = declared(name), declared(relative)
    shared = {
        key: value
        for key, value in one.optimizer.arguments.items()
        if value is not None and another.optimizer.arguments.get(key) is not None
    }
    another = declared(relative, **shared)  # at equal hyperparameters
    assert compare(one.of_library, another.of_library, first_steps(max(step, 2))).parts_at == step


# Where a rule and a library part, or two libraries, and why.


def test_pytorch_keeps_the_momentum_product_of_nadam_in_float32_and_is_the_rule_without_that() -> None:
    library = of_library("torch.optim.NAdam", momentum_decay=0.004, **WITHOUT_DECAY)
    rule = of_rule("nadam", momentum_decay=0.004, **WITHOUT_DECAY)
    comparison = compare(library, rule, first_steps(50))
    assert comparison.parts_at == 1
    assert worst(comparison) < 1e-7  # float32's rounding, through 1 / (1 - product)
    torch.set_default_dtype(torch.float64)  # which PyTorch's scalar state follows
    try:
        assert compare(library, rule, first_steps(50)).parts_at is None
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_two_adafactors_part_where_the_step_of_pytorch_is_capped() -> None:
    pytorch = of_library("torch.optim.Adafactor", lr=0.1, eps=(1e-15, 0.001))
    transformers = of_rule("adafactor", **{**ADAFACTOR, "weight_decay": 0.0, "lr": 0.1, "relative_step": False})
    assert compare(pytorch, transformers, first_steps(105)).parts_at == 101  # min(0.1, 1/sqrt(t)) from t = 101 on


def test_the_two_adafactors_part_at_once_by_their_decay() -> None:
    pytorch = of_library("torch.optim.Adafactor", lr=0.01, eps=(1e-15, 0.001), weight_decay=0.1)
    transformers = of_rule("adafactor", **ADAFACTOR, **RELATIVE)  # lr decay here, and alpha_t decay there
    assert compare(pytorch, transformers, first_steps(2)).parts_at == 1


def test_the_two_adafactors_are_one_at_the_rates_of_the_paper() -> None:
    pytorch = of_library("torch.optim.Adafactor", lr=0.01, eps=(1e-15, 0.001))
    transformers = of_rule("adafactor", **{**ADAFACTOR, "weight_decay": 0.0}, **RELATIVE)
    assert compare(pytorch, transformers, record()).parts_at is None


def test_the_floor_that_pytorch_puts_under_adafactor_is_felt_where_gradients_are_below_it() -> None:
    floor = torch.finfo(torch.bfloat16).eps  # its default for such parameters
    pytorch = of_library("torch.optim.Adafactor", lr=0.01, eps=(floor, 0.001))
    transformers = of_rule("adafactor", **{**ADAFACTOR, "weight_decay": 0.0}, **RELATIVE)
    assert compare(pytorch, transformers, first_steps(2)).parts_at == 1


def test_without_first_moment_prodigyopt_steps_by_the_new_rate_and_the_rule_by_the_old() -> None:
    values = {**PRODIGY, "betas": (0.0, 0.99), "weight_decay": 0.0}
    comparison = compare(of_library("prodigyopt.Prodigy", **values), of_rule("prodigy", **values), first_steps(5))
    assert comparison.parts_at == 2  # where d first rises: g d' here, and g d with beta1 = 0 in the average


@pytest.mark.parametrize(("schedule", "parts_at"), [(CONSTANT, None), (cosine(final_factor=0.0, warmup=0.0), 2)])
def test_the_papers_nesterov_is_pytorchs_while_the_rate_stands_still(schedule: Schedule, parts_at: int | None) -> None:
    pytorch = of_library("torch.optim.SGD", schedule, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    paper = of_rule("nesterov_lookahead", schedule, lr=0.1, momentum=0.9, weight_decay=0.1)
    assert compare(pytorch, paper, first_steps(50)).parts_at == parts_at


def test_nesterovs_rule_holds_the_point_that_the_paper_looks_ahead_to() -> None:
    def gradient(point: Tensor) -> Tensor:
        return torch.tensor([1.0, 10.0], dtype=torch.float64) * point

    theta, v = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    held, state = (theta,), {}
    for step in range(20):
        lr = 0.1 / (1 + step)
        held, state = RULES["nesterov_lookahead"]({"lr": lr, "momentum": 0.9}, state, held, (gradient(held[0]),))
        v = 0.9 * v - lr * gradient(theta + 0.9 * v)  # eq. 3
        theta = theta + v  # eq. 4
        torch.testing.assert_close(held[0], theta + 0.9 * v, rtol=1e-12, atol=1e-15)


# Identities between rules.

SGDW = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}


@pytest.mark.parametrize("schedule", [CONSTANT, COSINE], ids=["constant", "cosine"])
@pytest.mark.parametrize(
    ("name", "independent", "values"),
    [("adamw", "adamw_independent", WITHOUT_DECAY), ("sgdw", "sgdw_independent", SGDW)],
)
def test_decay_independent_of_lr_is_decay_times_lr_at_that_much_less(
    name: str, independent: str, values: dict[str, Any], schedule: Schedule
) -> None:
    times_lr = of_rule(name, schedule, weight_decay=0.1, **values)
    by_schedule = of_rule(independent, schedule, weight_decay=0.1 * values["lr"], **values)
    assert compare(times_lr, by_schedule, first_steps(50)).parts_at is None


@pytest.mark.parametrize(("schedule", "parts_at"), [(CONSTANT, None), (COSINE, 1)])
def test_fixed_decay_is_independent_decay_while_the_rate_stands_still(schedule: Schedule, parts_at: int | None) -> None:
    fixed = of_rule("adamw_fixed", schedule, weight_decay=0.001, **WITHOUT_DECAY)
    independent = of_rule("adamw_independent", schedule, weight_decay=0.001, **WITHOUT_DECAY)
    assert compare(fixed, independent, first_steps(50)).parts_at == parts_at


def test_tensorflows_adam_is_pytorchs_with_eps_over_the_correction() -> None:
    grad = torch.tensor([1e-6, -1e-5, 0.1], dtype=torch.float64)
    start, state, other = torch.zeros(3, dtype=torch.float64), {}, {}
    for step in range(1, 20):
        (ours,), state = RULES["adam_tf"](ADAM, state, (start,), (grad,))
        eps = ADAM["eps"] / (1 - 0.99**step) ** 0.5
        (theirs,), other = RULES["adam"]({**ADAM, "eps": eps}, other, (start,), (grad,))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)


# What a rule is made for: batches of hyperparameters.

BATCHES: Mapping[str, Any] = {
    "lr": [0.0, 0.01, 0.1],
    "initial_lr": [0.0, 0.01, 0.2],
    "betas": ([0.0, 0.9, 0.95], [0.9, 0.99, 0.999]),
    "beta1": [0.0, 0.9, 0.95],
    "beta3": [0.9, 0.95, 0.99],
    "eps": [1e-8, 1e-6, 1e-4],
    "weight_decay": [0.0, 0.01, 0.1],
    "momentum": [0.0, 0.5, 0.9],
    "dampening": [0.0, 0.1, 0.9],
    "alpha": [0.9, 0.95, 0.99],
    "rho": [0.9, 0.95, 0.99],
    "lr_decay": [0.0, 0.01, 0.1],
    "initial_accumulator_value": [0.0, 0.1, 1.0],
    "momentum_decay": [0.0, 0.004, 0.1],
    "clip_threshold": [0.1, 1.0, 10.0],
    "d": [0.1, 1.0, 10.0],
    "decay_rate": [-0.8, -0.5, -1.0],
    "beta2_decay": [-0.8, -0.5, -1.0],
    "d0": [1e-6, 1e-5, 1e-3],
    "d_coef": [0.5, 1.0, 2.0],
    "growth_rate": [1.02, 2.0, float("inf")],
}
PAIR_OF_EPS = ([1e-30, 1e-8, 1e-4], [0.001, 0.01, 0.1])
SWITCHES: Mapping[str, Any] = {
    "nesterov": True,
    "weight_decouple": False,
    "centered": True,
    "amsgrad": True,
    "decoupled_weight_decay": True,
    "scale_parameter": False,
    "relative_step": False,
    "warmup_init": True,
    "decouple": False,
    "use_bias_correction": True,
    "safeguard_warmup": True,
    "slice_p": 3,
}
SWITCHED = [(name, {}) for name in RULES] + [
    (name, {key: value})
    for name, rule in RULES.items()
    for key, value in SWITCHES.items()
    if key in rule.hyperparameters
]


def batch_of(rule: Rule, switches: Mapping[str, Any]) -> dict[str, Any]:
    """Three values of each numeric hyperparameter that the rule reads."""
    unknown = rule.hyperparameters - BATCHES.keys() - SWITCHES.keys()
    assert not unknown, "give values for these"
    batch = {}
    for key, values in BATCHES.items():
        if key not in rule.hyperparameters or (key == "lr" and rule.name == "adafactor" and not switches):
            continue
        values = PAIR_OF_EPS if key == "eps" and rule.name.startswith("adafactor") else values
        batch[key] = (
            tuple(torch.tensor(part, dtype=torch.float64) for part in values)
            if isinstance(values, tuple)
            else torch.tensor(values, dtype=torch.float64)
        )
    return batch


def member(batch: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One of the three, in plain numbers."""
    return {
        key: tuple(float(part[index]) for part in value) if isinstance(value, tuple) else float(value[index])
        for key, value in batch.items()
    }


def small(tape: Tape, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
    """A corner of a matrix, of a bias, and one number, of the first ten steps."""

    def corner(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tensors[2][:4, :5].to(dtype), tensors[3][:6].to(dtype), tensors[3][7].to(dtype)

    return corner(tape.params), [corner(grads) for grads in tape.grads[:10]]


def walk(
    step: Callable[..., tuple[tuple[Tensor, ...], State]],
    params: tuple[Tensor, ...],
    tape: list[tuple[Tensor, ...]],
) -> tuple[Tensor, ...]:
    state: State = {}
    for grads in tape:
        params, state = step(state, params, grads)
    return params


@pytest.mark.parametrize(("name", "switches"), SWITCHED, ids=str)
def test_a_batch_of_hyperparameters_gives_what_each_gives_alone(name: str, switches: dict[str, Any]) -> None:
    rule = RULES[name]
    batch = batch_of(rule, switches)
    params, tape = small(record(), torch.float64)

    def of_batch(state: State, at: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], State]:
        def one(values: dict[str, Any], state: State, at: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], State]:
            return rule({**values, **switches}, state, at, grads)

        return torch.func.vmap(one)(batch, state, at)

    together = walk(of_batch, tuple(param.expand(3, *param.shape) for param in params), tape)
    for index in range(3):
        values = {**member(batch, index), **switches}
        alone = walk(lambda *given, values=values: rule(values, *given), params, tape)
        for batched, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batched[index], single, rtol=1e-12, atol=1e-15)
            assert single.isfinite().all()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_changes_nothing_that_it_is_given(name: str) -> None:
    rule = RULES[name]
    values = member(batch_of(rule, {}), 1)
    params, (grads, *_) = small(record(), torch.float64)

    def flat(tree: Any) -> list[Tensor]:
        if isinstance(tree, Tensor):
            return [tree]
        return [leaf for branch in (tree.values() if isinstance(tree, Mapping) else tree) for leaf in flat(branch)]

    _, state = rule(values, {}, params, grads)
    before = [leaf.clone() for leaf in flat((state, params, grads))]
    once, again = rule(values, state, params, grads), rule(values, state, params, grads)
    for leaf, kept in zip(flat((state, params, grads)), before, strict=True):
        assert torch.equal(leaf, kept)
    for leaf, same in zip(flat(once), flat(again), strict=True):
        assert torch.equal(leaf, same)


@pytest.mark.parametrize("name", RULES)
def test_float32_parameters_stay_float32_and_near_the_path_of_float64(name: str) -> None:
    rule = RULES[name]
    values = {**member(batch_of(rule, {}), 1)}
    if name == "prodigy":
        values |= {"d0": 0.001, "growth_rate": 1.02}
    tensors = {
        key: tuple(torch.tensor(part, dtype=torch.float64) for part in value)
        if isinstance(value, tuple)
        else torch.tensor(value, dtype=torch.float64)
        for key, value in values.items()
    }
    double = walk(lambda *given: rule(values, *given), *small(record(), torch.float64))
    single = walk(lambda *given: rule(tensors, *given), *small(record(), torch.float32))
    for ours, exact in zip(single, double, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4)


def test_a_rule_says_which_hyperparameters_it_reads_and_passes_over_others() -> None:
    adamw = RULES["adamw"]
    assert adamw.hyperparameters == {"lr", "betas", "eps", "weight_decay", "amsgrad"}
    assert adamw.required == {"lr", "betas", "eps", "weight_decay"}
    params, (grads, *_) = small(record(), torch.float64)
    with_others = adamw({**ADAM, "foreach": None, "fused": True}, {}, params, grads)
    assert torch.equal(with_others[0][0], adamw(ADAM, {}, params, grads)[0][0])
    with pytest.raises(TypeError, match="betas"):
        adamw({"lr": 0.1, "eps": 0.1, "weight_decay": 0.0}, {}, params, grads)


def test_a_rule_gives_its_source() -> None:
    folder = Path(__file__).parent.parent / "optbench" / "optim" / "rules"
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.py")))
    for name in RULES:
        docstring = re.search(rf'def {name}\(.*?"""(.*?)"""', text, flags=re.DOTALL)
        assert docstring is not None
        assert re.search(r"\(\d{4}\)|PyTorch", docstring[1]), name
