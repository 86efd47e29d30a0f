"""The command `optbench parity`: which two are compared, what is printed, and its mistakes."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from optbench.cli import main
from optbench.compose import Composer
from optbench.errors import UsageError
from optbench.optim.rules import RULES
from optbench.parity import Declared, OfRule, Tape, compare, parity, record
from optbench.schedule import constant

Configs = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def configs(composer: Composer) -> Configs:
    """The configs that `optbench parity <overrides>` composes, with these keys of the optimizer in place of its own."""

    def compose(*overrides: str, **optimizer: Any) -> list[dict[str, Any]]:
        found = composer.configs(list(overrides), one_trial=False)
        return [{**config, "optimizer": {**config["optimizer"], **optimizer}} for config in found]

    return compose


def rows(printed: str) -> list[list[str]]:
    return [line.split() for line in printed.splitlines() if re.match(r"\s+\d+\s", line)]


def test_an_optimizer_is_compared_with_its_rule(configs: Configs, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(configs("optimizer=adamw")) == 0
    printed = capsys.readouterr().out
    assert "adamw (torch.optim.AdamW) and rule adamw" in printed
    for column in ("step", "max difference", "relative difference"):
        assert column in printed
    table = rows(printed)
    assert [row[0] for row in table] == ["1", "2", "5", "10", "20", "50", "100", "200"]
    assert all(float(largest) < 1e-14 and float(relative) < 1e-12 for _, largest, relative in table)
    assert printed.splitlines()[-1] == "equal to 1e-12 for 200 steps"


def test_two_optimizers_are_compared_with_each_other(configs: Configs, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(configs("optimizer=adam,adamw", departs=[])) == 1
    printed = capsys.readouterr().out
    assert "adam (torch.optim.Adam) and adamw (torch.optim.AdamW)" in printed
    assert printed.splitlines()[-1] == "part at step 1, and no `departs:` says why"


def test_the_first_of_several_is_compared_with_each_other_one(
    configs: Configs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity(configs("optimizer=sgd,momentum,nesterov", "optimizer.momentum=0.0", nesterov=False)) == 0
    printed = capsys.readouterr().out
    assert printed.count("equal to 1e-12 for 200 steps") == 2
    assert printed.count("sgd (torch.optim.SGD) and") == 2


def test_a_documented_departure_is_no_failure_and_its_reason_is_printed(
    configs: Configs, capsys: pytest.CaptureFixture[str]
) -> None:
    departs = [{"from": "adamw", "step": 1, "because": "decay is in the gradient [L2]"}]
    for order in ("adam,adamw", "adamw,adam"):  # either file may say it
        found = configs(f"optimizer={order}", "optimizer.weight_decay=0.1")
        for config in found:
            config["optimizer"]["departs"] = departs if config["optimizer"]["name"] == "adam" else []
        assert parity(found) == 0
        assert (
            capsys.readouterr().out.splitlines()[-1] == "part at step 1, as documented: decay is in the gradient [L2]"
        )


def test_a_departure_documented_for_another_step_is_a_failure(
    configs: Configs, capsys: pytest.CaptureFixture[str]
) -> None:
    found = configs("optimizer=adam", rule="adam_tf", departs=[{"from": "rule", "step": 3, "because": "eps"}])
    for config in found:
        for key in ("amsgrad", "decoupled_weight_decay"):
            config["optimizer"].pop(key)
    assert parity(found) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "part at step 1, where step 3 is documented: eps"


def test_the_schedule_is_followed(configs: Configs) -> None:
    def parts_at(rule: str, *overrides: str) -> int | None:
        config, *_ = configs("optimizer=adamw", "optimizer.weight_decay=0.01", *overrides, rule=rule)
        declared = Declared.from_config(config)
        one, other = declared.of_library, declared.of_rule
        values = {**other.hyperparameters, "weight_decay": 0.00001}  # lr times the library's
        return compare(
            one, type(other)(rule=other.rule, hyperparameters=values, schedule=other.schedule), short
        ).parts_at

    short = Tape(params=record().params, grads=record().grads[:20])
    assert parts_at("adamw_fixed") is None
    assert parts_at("adamw_fixed", "schedule=cosine") == 2
    assert parts_at("adamw_independent", "schedule=cosine", "schedule.warmup=0.1") is None


def test_an_optimizer_without_a_rule_says_what_to_do(configs: Configs) -> None:
    with pytest.raises(UsageError, match=r"adamw has no rule .*\n.*optbench parity optimizer=adamw,adamw"):
        parity(configs("optimizer=adamw", rule=None))


def test_an_unknown_rule_is_named_with_the_nearest_one(configs: Configs) -> None:
    with pytest.raises(UsageError, match=r"unknown rule 'lions' of adamw.*Did you mean 'lion'"):
        parity(configs("optimizer=adamw", rule="lions"))


def test_a_hyperparameter_that_the_rule_does_not_know_is_a_mistake_unless_it_is_off(configs: Configs) -> None:
    with pytest.raises(
        UsageError, match=r"optimizer.amsgrad=True: rule adam_tf does not know .*\nIt knows: betas, eps"
    ):
        parity(configs("optimizer=adam", "optimizer.amsgrad=true", rule="adam_tf"))
    with pytest.raises(UsageError, match=r"rule lion needs optimizer.betas, which sgd does not give"):
        parity(configs("optimizer=sgd", rule="lion"))
    Declared.from_config(configs("optimizer=adam", "optimizer.foreach=true", rule="adam_tf")[0]).of_rule  # noqa: B018


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["parity", *arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "override",
    ["max_grad_norm=1.0", "lr_scaling.rule=sqrt", "param_groups=no_decay", "seed=3", "task=mnist_mlp", "+budget.x=1"],
)
def test_what_parity_would_not_use_is_refused(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "optimizer=adamw", override)
    assert f"{override}: parity compares the updates" in message
    assert "It takes optimizer..., schedule... and allow=" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~optimizer", "optimizer is missing"),
        ("~schedule", "schedule is missing"),
        ("schedule.warmup=null", "schedule 'constant' refuses {'warmup': None}"),
    ],
)
def test_a_part_that_is_missing_is_a_clear_error(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, override)


def test_the_clipping_of_a_preset_is_no_obstacle(configs: Configs, capsys: pytest.CaptureFixture[str]) -> None:
    parity(configs("optimizer=preset/llama2,adamw", "schedule=constant"))
    title, *_ = capsys.readouterr().out.splitlines()
    assert title == "preset/llama2 (torch.optim.AdamW) lr=0.0003 and adamw (torch.optim.AdamW) lr=0.001"


def test_two_settings_of_one_optimizer_are_told_apart(configs: Configs, capsys: pytest.CaptureFixture[str]) -> None:
    parity(configs("optimizer=adamw", "optimizer.lr=0.1,0.2"))
    assert capsys.readouterr().out.startswith("adamw (torch.optim.AdamW) lr=0.1 and adamw (torch.optim.AdamW) lr=0.2\n")
    parity(configs("optimizer=adamw", "schedule=constant,cosine", "optimizer.eps=0.1"))
    title, *_ = capsys.readouterr().out.splitlines()
    assert title == "adamw (torch.optim.AdamW) schedule=constant and adamw (torch.optim.AdamW) schedule=cosine"


def test_an_optimizer_that_needs_the_loss_has_no_parity(configs: Configs) -> None:
    with pytest.raises(UsageError, match="adamw needs more than recorded gradients"):
        parity(configs("optimizer=adamw", capabilities=["closure"]))


class Float32Alone(torch.optim.SGD):
    """Refuses to step."""

    def step(self, closure: Any = None) -> None:
        raise TypeError("float32 only")


def test_an_optimizer_that_cannot_step_in_float64_says_so(configs: Configs) -> None:
    found = configs("optimizer=sgd", _target_="tests.test_parity.Float32Alone")
    with pytest.raises(UsageError, match=r"sgd .*does not step in float64 \(TypeError: float32 only\)"):
        parity(found)


# The tape, and what counts as equal.


def test_a_tape_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    tape, again, other = (record.__wrapped__(seed=seed) for seed in (1, 1, 2))  # type: ignore[attr-defined]
    assert all(torch.equal(*pair) for pair in zip(tape.grads[-1], again.grads[-1], strict=True))
    assert not torch.equal(tape.params[0], other.params[0])
    assert len(tape.grads) == 200
    assert {tensor.dtype for tensor in (*tape.params, *tape.grads[0])} == {torch.float64}


def test_a_tape_is_of_a_training_that_learns() -> None:
    images, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    model = record().model()
    assert [tuple(param.shape) for param in model.parameters()] == [(100, 64), (100, 100), (10, 100), (10,)]
    *_, end = OfRule(rule=RULES["sgd"], hyperparameters={"lr": 0.5}, schedule=constant(warmup=0.0)).path(record())
    accuracies = []
    for _ in range(2):
        accuracies.append(float((model(images / 16).argmax(dim=1) == labels).double().mean()))
        nn.utils.vector_to_parameters(end, model.parameters())
    before, after = accuracies
    assert before < 0.3
    assert after > 0.8


@dataclass(frozen=True, kw_only=True)
class Line:
    """Goes the same way in each step, and from some step on a little farther."""

    rate: float
    excess: float = 0.0
    since: int = 1
    title: str = "line"

    def path(self, tape: Tape) -> Iterator[Tensor]:
        position = tape.params[0].clone()
        for step, (grad,) in enumerate(tape.grads, start=1):
            position -= self.rate * (1 + (self.excess if step >= self.since else 0.0)) * grad
            yield position.clone()


LINE = Tape(params=(torch.zeros(3, dtype=torch.float64),), grads=((torch.ones(3, dtype=torch.float64),),) * 20)


@pytest.mark.parametrize(("excess", "since", "parts_at"), [(1e-9, 1, 1), (1e-9, 7, 7), (1e-14, 1, None)])
def test_two_part_at_the_first_step_with_a_difference_above_1e_12_of_the_way(
    excess: float, since: int, parts_at: int | None
) -> None:
    comparison = compare(Line(rate=0.1), Line(rate=0.1, excess=excess, since=since), LINE)
    assert comparison.parts_at == parts_at
    assert [difference.step for difference in comparison.differences] == [1, 2, 5, 10, 20]
    if since == 1:
        assert comparison.differences[-1].relative == pytest.approx(excess, rel=0.1)
        assert comparison.differences[-1].largest == pytest.approx(20 * 0.1 * excess, rel=0.1)


def test_what_is_lost_in_the_rounding_of_large_parameters_is_no_difference() -> None:
    far = Tape(params=(torch.full((3,), 1000.0, dtype=torch.float64),), grads=LINE.grads)
    comparison = compare(Line(rate=1e-6), Line(rate=1e-6, excess=1e-7), far)
    assert comparison.differences[-1].relative > 1e-12
    assert comparison.parts_at is None
    assert compare(Line(rate=1e-6), Line(rate=1e-6, excess=1e-4), far).parts_at == 1


def test_an_overflow_is_never_equal() -> None:
    comparison = compare(Line(rate=math.inf), Line(rate=math.inf), LINE)
    assert comparison.parts_at == 1


def test_a_rate_that_is_a_tensor_is_filled_in_place(configs: Configs) -> None:
    config, *_ = configs("optimizer=sgd", "schedule=linear", _target_="tests.test_parity.TensorRate")
    declared = Declared.from_config(config)
    assert compare(declared.of_library, declared.of_rule, record()).parts_at is None


class TensorRate(torch.optim.SGD):
    """Keeps its rate in a tensor, and reads that one alone."""

    def __init__(self, params: list[nn.Parameter], lr: float, **others: Any) -> None:
        self.rate = torch.tensor(lr, dtype=torch.float64)
        super().__init__(params, lr=self.rate, **others)

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["lr"] = self.rate
        super().step(closure)
