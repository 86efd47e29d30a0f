"""Bags of words: how often words come, whose documents are whose, and what is asked of the arguments."""

import itertools
from typing import Any

import pytest
import torch
from optbench.tasks.sparse import SparseLogistic

from optbench.errors import UsageError
from optbench.trial import Trial
from tests.conftest import MakeTrial, RunTrial

CPU = torch.device("cpu")
WORDS = ["task=sparse_logistic", "evaluation.every_num_steps=160", "hardware=cpu"]


def sparse(seed: int = 0, **changes: Any) -> SparseLogistic:
    sizes = {"num_words": 100, "num_train": 2000, "num_test": 500, "batch_size": 50}
    shape = {"exponent": 1.0, "weight_scale": 2.0, "rare_below": 0.01}
    return SparseLogistic(**{**sizes, **shape, **changes}, seed=seed, device=CPU)


def documents(task: SparseLogistic) -> torch.Tensor:
    return torch.cat([words for words, _ in itertools.islice(task.batches(), 40)])


def test_word_j_is_in_half_of_one_in_j_documents() -> None:
    frequencies = documents(sparse(num_train=20_000)).mean(0)
    assert frequencies[0].item() == pytest.approx(0.5, abs=0.05)
    for first in (1, 10, 50):
        expected = sum(0.5 / word for word in range(first + 1, first + 31)) / 30
        assert frequencies[first : first + 30].mean().item() == pytest.approx(expected, rel=0.15)


def test_a_seed_has_documents_of_its_own_and_the_same_each_time() -> None:
    first, again, other = (documents(sparse(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_pass_meets_every_document_once() -> None:
    task = sparse()
    assert torch.equal(documents(task).sum(0), task._words.sum(0))


def test_a_model_that_knows_nothing_has_the_loss_of_a_coin() -> None:
    metrics = sparse().evaluate()
    for name in ("test_loss", "rare_loss", "frequent_loss"):
        assert metrics[name] == pytest.approx(0.693147, abs=1e-5)
    assert metrics["rare_learned"] == metrics["frequent_learned"] == 0.0


def test_the_oracle_has_learned_all_and_has_a_lower_loss_on_both_parts() -> None:
    task = sparse()
    with torch.no_grad():
        task.model.weight.copy_(task._oracle)
    metrics = task.evaluate()
    assert metrics["rare_learned"] == pytest.approx(1.0)
    assert metrics["frequent_learned"] == pytest.approx(1.0)
    assert max(metrics["rare_loss"], metrics["frequent_loss"]) < 0.6


def test_the_loss_of_all_is_that_of_documents_with_rare_words_and_without() -> None:
    task = sparse()
    with torch.no_grad():
        task.model.weight.copy_(task._oracle)
    metrics = task.evaluate()
    share = task._test_words[:, 50:].any(1).float().mean().item()  # word 51 is the first below 0.01
    joined = share * metrics["rare_loss"] + (1 - share) * metrics["frequent_loss"]
    assert metrics["test_loss"] == pytest.approx(joined, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_words": 1}, r"task.num_words=1: at least 2 are needed"),
        ({"num_test": 0}, r"task.num_test=0: at least 2 are needed"),
        ({"exponent": -1.0}, r"task.exponent=-1.0, task.weight_scale=2.0: the first is at least 0"),
        ({"weight_scale": 0.0}, r"task.weight_scale=0.0: the first is at least 0, the other above"),
        ({"batch_size": 2001}, r"task.batch_size=2001: there are 2000 training documents"),
        ({"rare_below": 0.9}, r"task.rare_below=0.9: words have frequencies from 0.005 to 0.5"),
        ({"rare_below": 0.001}, r"task.rare_below=0.001: words have frequencies from 0.005 to 0.5"),
        ({"exponent": 0.0, "rare_below": 0.5}, r"words have frequencies from 0.5 to 0.5"),
        ({"num_test": 2, "rare_below": 0.4}, r"all test documents, or none of them, have a rare word"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sparse(**changes)


def test_sizes_are_set_on_the_command_line(make_trial: MakeTrial) -> None:
    trial: Trial = make_trial("task=sparse_logistic", "task.num_words=50", "task.rare_below=0.02")
    assert trial.config["task"]["num_words"] == 50
    assert trial.budget.num_steps == 160


def test_adagrad_learns_more_of_the_rare_words_than_sgd(run_trial: RunTrial) -> None:
    adagrad, sgd = (
        run_trial(*WORDS, f"optimizer={name}", f"optimizer.lr={lr}").curve
        for name, lr in (("adagrad", 0.4), ("sgd", 4.0))
    )
    assert adagrad["rare_learned"][-1] > 2.0 * sgd["rare_learned"][-1]
    assert adagrad["rare_loss"][-1] < sgd["rare_loss"][-1]
