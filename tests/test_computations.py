"""Computations of papers: figures of optimizers are those of theory, and change where an optimizer is broken."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optbench.catalogue import Entry
from optbench.catalogue import entry as entry_of
from optbench.errors import UsageError
from optbench.papers.computations import COMPUTATIONS, compute, trace
from optbench.papers.outcome import Outcome, outcome
from optbench.papers.paper import Measure, Paper
from optbench.papers.reading import read
from optbench.papers.verdicts import Verdict

CONF = Path(__file__).parent.parent / "conf" / "paper"
ADAM = {"betas": [0.9, 0.999], "eps": 0.0, "gradient": 1.0}
UNCORRECTED = {"optimizer": "adam_uncorrected", "against": "adam", **ADAM}


def figure(name: str, **arguments: Any) -> float:
    return compute(
        Measure(
            where={},
            figure=None,
            at="last",
            steps=None,
            reduction=None,
            comparison=None,
            against=None,
            compute=name,
            arguments=arguments,
        )
    )


def paper(name: str) -> Paper:
    file = CONF / f"{name}.yaml"
    return read(file.read_text(), where=file.name)


@cache
def computed(name: str) -> Outcome:
    """What comes out without any trial."""
    return outcome(paper(name), [], compute=compute)


# The files of papers that are computed.


@pytest.mark.parametrize("name", ["identities", "adam_identities"])
def test_every_identity_is_reproduced(name: str) -> None:
    found = computed(name)
    assert [one.cell.row for one, verdict in found.judged if verdict is not Verdict.REPRODUCED] == []
    assert found.verdict is Verdict.REPRODUCED


@pytest.mark.parametrize("name", ["adam_bias_correction", "quadratics"])
def test_what_is_computed_of_a_paper_with_trials_is_reproduced(name: str) -> None:
    verdicts = [
        one.found.verdict
        for one in computed(name).cells
        if one.cell.check.measure.compute and one.found and one.cell.check.is_judged
    ]
    assert set(verdicts) <= {Verdict.REPRODUCED}


def test_statements_that_are_wrong_are_refuted_and_the_others_confirmed() -> None:
    wrong = {
        "C10": ["without correction the weights of Adam's first moment sum to 0.65 at step 3"],
        "C11": ["whatever beta2 is, such as the 0.95 of language models"],
        "C13": ["the correction is there because updates are too small in the first steps"],
        "C14": ["and it is without bias correction"],
        "C16": ["decay in the gradient is decoupled decay for SGD, with momentum too"],
        "C21": ["the rates that LLaMA 2 was trained at are not known"],
        "C24": ["RAdam rectifies from step 5, where rho_t is above 4"],
        "C30": ["Adafactor without a first moment acts like momentum, since it scales the gradient"],
        "C36": ["Lion steps by the sign of its momentum"],
        "C48": ["Prodigy's s is Adam's second moment, as one letter for both has it"],
    }
    for name in ("identities", "adam_identities", "adam_bias_correction", "quadratics"):
        for one in computed(name).claims:
            if one.claim.check.measure.compute and one.found:
                expected = one.claim.text not in wrong.get(one.claim.id, [])
                assert (one.found.verdict is Verdict.REPRODUCED) is expected, one.claim.text


def test_every_computation_of_a_paper_is_known() -> None:
    for file in CONF.glob("*.yaml"):
        found = paper(file.stem)
        checks = [cell.check for table in found.tables for cell in table.cells]
        used = {check.measure.compute for check in (*checks, *(claim.check for claim in found.claims))} - {None}
        assert used <= set(COMPUTATIONS)


# Figures by arithmetic.


@pytest.mark.parametrize("beta2", [0.95, 0.999, 0.9999])
@pytest.mark.parametrize("t", [1, 12, 100])
def test_the_uncorrected_step_is_too_long_by_the_factor_of_the_correction(beta2: float, t: int) -> None:
    expected = (1 - 0.9**t) / math.sqrt(1 - beta2**t)
    assert figure("step_ratio", **{**UNCORRECTED, "betas": [0.9, beta2]}, t=t) == pytest.approx(expected, rel=1e-9)


def test_the_longest_step_and_the_end_of_long_steps_are_those_of_the_formula() -> None:
    ratios = [(1 - 0.9**t) / math.sqrt(1 - 0.99**t) for t in range(1, 301)]
    arguments = {**UNCORRECTED, "betas": [0.9, 0.99], "num_steps": 300}
    assert figure("longest_step_ratio", **arguments) == pytest.approx(max(ratios))
    assert figure("longest_step_ratio_at", **arguments) == ratios.index(max(ratios)) + 1
    below = next(t for t in range(1, 301) if all(ratio < 1.05 for ratio in ratios[t - 1 :]))
    assert figure("step_ratio_below", **arguments, level=1.05) == below


@pytest.mark.parametrize("t", [6, 100, 556])
def test_the_rectifier_is_that_of_the_paper(t: int) -> None:
    limit = 2 / (1 - 0.999) - 1
    rho = limit - 2 * t * 0.999**t / (1 - 0.999**t)
    expected = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    assert figure("rectifier", optimizer="radam", beta2=0.999, t=t) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("gradient", "t"), [(1e-6, 1), (1e-5, 10), (1e-4, 100)])
def test_pytorchs_eps_weighs_less_than_tensorflows_by_the_formula(gradient: float, t: int) -> None:
    root = math.sqrt(1 - 0.999**t)
    expected = (gradient * root + 1e-5) / (root * (gradient + 1e-5))
    arguments = {**ADAM, "optimizer": "adam", "against": "adam_tf", "eps": 1e-5, "gradient": gradient}
    assert figure("step_ratio", **arguments, t=t) == pytest.approx(expected, rel=1e-9)


def test_a_coordinate_changes_its_sign_where_the_rate_times_its_curvature_is_above_1() -> None:
    arguments = {"optimizer": "sgd", "changes": {"lr": 0.0195}, "curvatures": [1.0, 100.0], "num_steps": 100}
    assert [figure("sign_changes", **arguments, axis=axis) for axis in (0, 1)] == [0.0, 100.0]


def test_a_momentum_has_a_direction_of_its_own_and_adafactors_is_optional() -> None:
    momentum = figure("moves_against_gradient", optimizer="momentum", changes={})
    assert momentum < 0.9
    assert figure("moves_against_gradient", optimizer="sgd", changes={}) == 1.0
    assert figure("moves_against_state", optimizer="lion", changes={"betas": [0.9, 0.9]}, state="exp_avg") == 1.0


def test_transformers_adafactor_refuses_a_rate_beside_relative_step() -> None:
    pytest.importorskip("transformers")
    arguments = {"optimizer": "adafactor_transformers"}
    assert figure("refuses", **arguments, changes={"lr": 0.001}) == 1.0
    assert figure("refuses", **arguments, changes={"lr": 0.001, "relative_step": False}) == 0.0


# Optimizers that are broken.


class CoupledAdamW(torch.optim.AdamW):
    """Decay in the gradient."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            decay, group["weight_decay"] = group["weight_decay"], 0.0
            for parameter in group["params"]:
                parameter.grad = parameter.grad + decay * parameter.detach()
            super().step(closure)
            group["weight_decay"] = decay


class LateAdam(torch.optim.Adam):
    """Its correction is that of the step before."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for state in self.state.values():
            state["step"] = torch.clamp(state["step"] - 0.5, min=1.0)


class SignOfMomentum(torch.optim.Optimizer):
    """Lion, by the momentum that it keeps."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1.0, *, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                assert parameter.grad is not None
                average = self.state[parameter].setdefault("exp_avg", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["betas"][1])
                parameter.sub_(group["lr"] * average.sign())


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`<name>_broken` in the catalogue: another class in the place of its own."""
    classes: Mapping[str, type] = {"adamw": CoupledAdamW, "adam": LateAdam, "lion": SignOfMomentum}

    def entry(group: str, name: str) -> Entry | None:
        own = name.removesuffix("_broken")
        found = entry_of(group, own)
        if found is None or own == name:
            return found
        keys = ("betas", "eps", "weight_decay") if own != "lion" else ("betas",)
        config = {key: found.config[key] for key in ("name", "lr", *keys)}
        target = f"{__name__}.{classes[own].__name__}"
        return dataclasses.replace(found, config={**config, "_target_": target})

    monkeypatch.setattr(trace, "entry", entry)


@pytest.mark.usefixtures("broken")
def test_a_decay_that_is_coupled_by_mistake_shows() -> None:
    changes = {"weight_decay": 0.1}
    paper_form = {"against": "adamw_independent", "against_changes": {"weight_decay": 0.0001}}
    assert figure("path_difference", optimizer="adamw", changes=changes, **paper_form) < 1e-12
    assert figure("path_difference", optimizer="adamw_broken", changes=changes, **paper_form) > 0.01
    assert figure("decay_per_step", optimizer="adamw_broken", changes=changes) > 5e-4


@pytest.mark.usefixtures("broken")
def test_a_bias_correction_that_is_wrong_shows() -> None:
    assert figure("step_length", optimizer="adam_broken", **ADAM, t=3) != pytest.approx(1.0, abs=0.01)
    assert figure("adagrad_difference", optimizer="adam_broken", against="adagrad", beta2=0.999999999) > 1e-3


@pytest.mark.usefixtures("broken")
def test_a_lion_that_steps_by_its_momentum_shows() -> None:
    gradients = [100.0, -20.0]
    assert figure("last_move", optimizer="lion", changes={}, gradients=gradients) == 1.0
    assert figure("last_move", optimizer="lion_broken", changes={}, gradients=gradients) == -1.0
    assert figure("moves_against_state", optimizer="lion_broken", changes={}, state="exp_avg") == 1.0


def test_the_other_convention_of_momentum_shows() -> None:
    changes = {"lr": 0.01}
    same = {"against": "sgdw_composer", "against_changes": {"lr": 0.01, "weight_decay": 0.0}}
    assert figure("path_difference", optimizer="momentum", changes=changes, **same) < 1e-12
    assert figure("path_difference", optimizer="momentum_averaging", changes=changes, **same) > 0.1


def test_a_schedule_that_is_off_by_one_step_shows() -> None:
    arguments = {"schedule": "inverse_sqrt", "formula": "inverse_sqrt"}
    assert figure("schedule_difference", **arguments, changes={"timescale": 0.001}) < 1e-12
    assert figure("schedule_difference", **arguments, changes={"timescale": 0.002}) > 0.01


# Mistakes of whoever writes a paper's file.


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("step_lenght", {}, "unknown computation 'step_lenght'. Did you mean 'step_length'"),
        ("decay_per_step", {"optimizer": "sgd", "change": {}}, "unknown argument 'change'.*Did you mean 'changes'"),
        ("decay_per_step", {"optimizer": "sgd"}, "decay_per_step needs arguments.changes"),
        ("decay_per_step", {"optimizer": 1, "changes": {}}, r"arguments.optimizer=1: expected str, got int"),
        ("decay_per_step", {"optimizer": "sgd", "changes": 1}, r"arguments.changes=1: expected a mapping"),
        ("rectifier", {"optimizer": "radam", "beta2": 0.999, "t": 6.0}, r"arguments.t=6.0: expected int, got float"),
        ("last_move", {"optimizer": "lion", "changes": {}, "gradients": ["a"]}, r"gradients='a': expected float"),
        ("last_move", {"optimizer": "lion", "changes": {}, "gradients": 1.0}, "expected a list"),
        ("decay_per_step", {"optimizer": "agd", "changes": {}}, "unknown optimizer 'agd'"),
        ("decay_per_step", {"optimizer": "sgd", "changes": {"decay": 0.1}}, "decay"),
        ("moves_against_state", {"optimizer": "lion", "changes": {}, "state": "m"}, "unknown state 'm'"),
        ("schedule_difference", {"schedule": "cosin", "changes": {}, "formula": "cosine"}, "Did you mean 'cosine'"),
        ("schedule_difference", {"schedule": "cosine", "changes": {}, "formula": "sine"}, "unknown value 'sine'"),
        (
            "preset_value",
            {"preset": "preset/llama2", "key": "preset.lr.8B"},
            "unknown key '8B'.*Allowed: 13B, 34B, 70B, 7B",
        ),
        ("preset_value", {"preset": "preset/llama2", "key": "preset.lr"}, "is no number"),
        ("decay_per_step", {"optimizer": "preset/llama2", "changes": {}}, "lr is .* in its YAML; give a value"),
        ("preset_value", {"preset": "preset/llama9", "key": "lr"}, "unknown optimizer 'preset/llama9'"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(name: str, arguments: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        figure(name, **arguments)


def test_a_computation_uses_one_thread_and_leaves_their_number_as_it_was() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        figure("decay_per_step", optimizer="adamw", changes={})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
