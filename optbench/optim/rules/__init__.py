"""Update rules as pure functions, after their papers: what the libraries are compared with.

`RULES[name](hyperparameters, state, params, grads)` gives the parameters and the state after one step.
"""

from collections.abc import Mapping
from types import MappingProxyType

from optbench.optim.rules.adafactor import adafactor, adafactor_torch
from optbench.optim.rules.adam import adam, adam_tf, adam_uncorrected, amsgrad
from optbench.optim.rules.adam_variants import adamax, nadam, radam
from optbench.optim.rules.adamw import adamw, adamw_fixed, adamw_independent
from optbench.optim.rules.adaptive import adadelta, adagrad, rmsprop
from optbench.optim.rules.base import Rule, State, Tensors
from optbench.optim.rules.prodigy import prodigy
from optbench.optim.rules.sgd import nesterov_lookahead, sgd, sgdw, sgdw_independent
from optbench.optim.rules.sign import lion, signum

__all__ = ["RULES", "Rule", "State", "Tensors"]

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            sgd,
            nesterov_lookahead,
            sgdw,
            sgdw_independent,
            adagrad,
            rmsprop,
            adadelta,
            adam,
            amsgrad,
            adam_uncorrected,
            adam_tf,
            adamw,
            adamw_independent,
            adamw_fixed,
            radam,
            nadam,
            adamax,
            adafactor,
            adafactor_torch,
            lion,
            signum,
            prodigy,
        )
    }
)
