"""What tests share: trials made as the command line makes them."""

from collections.abc import Callable

import pytest
import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from optbench.compose import Composer
from optbench.composing import hydra_version
from optbench.measurement import Measurement
from optbench.run import Result, run
from optbench.trial import Trial

MakeTrial = Callable[..., Trial]
RunTrial = Callable[..., Result]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Two test processes with two threads each would fight for two cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def composer() -> Composer:
    with initialize_config_module("optbench.conf", **hydra_version()):
        return Composer(GlobalHydra.instance().config_loader(), [])


@pytest.fixture(scope="session")
def make_trial(composer: Composer) -> MakeTrial:
    """The trial that `optbench run <overrides>` trains."""

    def make(*overrides: str) -> Trial:
        (config,) = composer.configs(list(overrides), one_trial=True)
        return Trial.from_config(config)

    return make


@pytest.fixture(scope="session")
def run_trial(make_trial: MakeTrial) -> RunTrial:
    """The result of `optbench run <overrides>`, not stored."""

    def execute(*overrides: str, on_measurement: Callable[[Measurement], None] = lambda _: None) -> Result:
        return run(make_trial(*overrides), on_measurement=on_measurement)

    return execute
