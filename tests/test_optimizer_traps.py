"""What optimizers do that their names and papers do not say: each trap that a file's header or a refusal speaks of.

A test that fails after an upgrade is good news: the trap is gone, and the header, the limit or the refusal can go too.
"""

import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from optbench.component import optimizer_component
from optbench.errors import UsageError
from optbench.memory import low_bit_share, state_bytes
from optbench.optim.build import check
from optbench.optim.refused import NEEDS_MATRICES, REFUSED, REFUSED_ARGUMENTS

FILES = Path(__file__).parent.parent / "conf" / "optimizer"
RELOADED_COARSER = [
    path.stem
    for path in sorted(FILES.glob("*.yaml"))
    if "bf16_reload" in (yaml.safe_load(path.read_text()).get("limits") or {})
]
LOW_RANK = {"rank": 2, "update_proj_gap": 200, "scale": 1.0, "projection_type": "std"}

# Arguments that these classes cannot do without.
NEEDED: Mapping[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "LARS": {"momentum": 0.9}}


def make(target: str, params: Sequence[Any], **arguments: Any) -> torch.optim.Optimizer:
    optimizer = pkgutil.resolve_name(target)(params, **arguments)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def weights(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter((scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))).to(dtype))


def follow(
    optimizer: torch.optim.Optimizer, *, num_steps: int = 6, scale: float = 1.0, held: nn.Parameter | None = None
) -> Tensor:
    """The parameter after steps along the same random gradients, whatever the optimizer."""
    (parameter,) = [held] if held is not None else optimizer.param_groups[0]["params"]
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        gradient = scale * torch.randn(parameter.shape, generator=generator)
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
    return parameter.detach().clone()


def path(target: str, *, weight: Mapping[str, Any] | None = None, scale: float = 1.0, **arguments: Any) -> Tensor:
    parameter = weights(*(weight or {}).get("shape", (64, 64)), scale=(weight or {}).get("scale", 1.0))
    return follow(make(target, [parameter], **arguments), scale=scale)


def step_once(optimizer: torch.optim.Optimizer, gradient: float = 1.0) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()


@pytest.fixture
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao compiles inside `step()`, which takes most of a minute."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


# --- bitsandbytes ---------------------------------------------------------------------------------------------------


def test_bitsandbytes_adam_decays_the_weights_as_adamw_does() -> None:
    options = {"lr": 0.01, "weight_decay": 0.1, "scale": 0.001}
    assert torch.equal(path("bitsandbytes.optim.Adam8bit", **options), path("bitsandbytes.optim.AdamW8bit", **options))
    adam = path("bitsandbytes.optim.Adam", **options)
    torch.testing.assert_close(adam, path("torch.optim.AdamW", **options))
    assert (adam - path("torch.optim.Adam", **options)).abs().max() > 0.05


@pytest.mark.parametrize(
    ("target", "same_as", "arguments"),
    [("LAMB8bit", "Adam8bit", {}), ("LARS8bit", "SGD8bit", {"momentum": 0.9})],
)
def test_bitsandbytes_has_no_trust_ratio_in_8_bits(target: str, same_as: str, arguments: dict[str, Any]) -> None:
    found, plain = (path(f"bitsandbytes.optim.{name}", lr=0.01, **arguments) for name in (target, same_as))
    assert torch.equal(found, plain)


@pytest.mark.parametrize(
    ("target", "plain", "ours", "arguments"),
    [
        ("LAMB", "AdamW", "pytorch_optimizer.Lamb", {"weight_decay": 0.0}),
        ("LAMB32bit", "AdamW", "pytorch_optimizer.Lamb", {"weight_decay": 0.0}),
        ("LARS", "SGD", "pytorch_optimizer.LARS", {"momentum": 0.9}),
        ("LARS32bit", "SGD", "pytorch_optimizer.LARS", {"momentum": 0.9}),
        ("PytorchLARS", "SGD", "pytorch_optimizer.LARS", {"momentum": 0.9}),
    ],
)
def test_bitsandbytes_scales_no_step_up_to_the_size_of_the_weights(
    target: str, plain: str, ours: str, arguments: dict[str, Any]
) -> None:
    large = {"scale": 10_000.0}
    found, unscaled = (
        path(f"bitsandbytes.optim.{name}", weight=large, lr=0.01, **arguments) for name in (target, plain)
    )
    torch.testing.assert_close(found, unscaled)
    assert not torch.allclose(found, path(ours, weight=large, lr=0.01, **arguments))


@pytest.mark.parametrize("target", REFUSED)
def test_what_is_not_what_its_name_says_is_refused(target: str) -> None:
    assert callable(pkgutil.resolve_name(target))
    with pytest.raises(UsageError, match=r"is refused: .*Use optimizer="):
        check(optimizer_component({"name": "mine", "_target_": target, "lr": 0.01}))


def test_a_refused_class_is_refused_however_it_is_spelt() -> None:
    with pytest.raises(UsageError, match=r"bitsandbytes.optim.lamb.LAMB8bit is refused"):
        check(optimizer_component({"name": "mine", "_target_": "bitsandbytes.optim.lamb.LAMB8bit", "lr": 0.01}))


@pytest.mark.parametrize(
    ("target", "argument"),
    [(target, argument) for target, arguments in REFUSED_ARGUMENTS.items() for argument in arguments],
)
def test_an_argument_that_a_class_ignores_is_refused(target: str, argument: str) -> None:
    real, _ = REFUSED_ARGUMENTS[target][argument]
    needed = {"lr": 0.01, **next((found for key, found in NEEDED.items() if target.split(".")[-1].startswith(key)), {})}
    value = True if real is False else 0.5
    if "Paged" not in target:
        assert torch.equal(path(target, **needed, **{argument: value}), path(target, **needed))
    config = {"name": "mine", "_target_": target, **needed}
    check(optimizer_component({**config, argument: real}))
    check(optimizer_component(config))
    with pytest.raises(UsageError, match=f"optimizer.{argument}=.* is refused: the class ignores it"):
        check(optimizer_component({**config, argument: value}))


@pytest.mark.parametrize("target", ["Adam8bit", "AdamW8bit", "PagedAdam8bit", "PagedAdamW8bit"])
def test_bitsandbytes_itself_refuses_amsgrad_in_8_bits(target: str) -> None:
    with pytest.raises(ValueError, match="does not support amsgrad"):
        make(f"bitsandbytes.optim.{target}", [weights(2, 2)], amsgrad=True)


def test_maps_that_8_bit_states_share_count_once() -> None:
    optimizer = make("bitsandbytes.optim.AdamW8bit", [weights(4096), weights(64, 64)])
    step_once(optimizer)
    maps = {state[key].data_ptr() for state in optimizer.state.values() for key in ("qmap1", "qmap2")}
    assert len(maps) == 2
    moments, scales, shared = 2 * 4096, 2 * (4096 // 256) * 4, 2 * 256 * 4
    assert state_bytes(optimizer) == 2 * (moments + scales) + shared


@pytest.mark.parametrize(("num_values", "share"), [(4095, 0.0), (4096, 1.0), (4097, 1.0)])
def test_a_small_tensor_keeps_its_state_in_32_bits(num_values: int, share: float) -> None:
    optimizer = make("bitsandbytes.optim.AdamW8bit", [weights(num_values)])
    step_once(optimizer)
    assert low_bit_share(optimizer) == share


def test_paged_state_is_not_paged_on_the_cpu() -> None:
    with pytest.warns(UserWarning, match="Paged optimizers are not supported on CPU"):
        paged = path("bitsandbytes.optim.PagedAdamW8bit")
    assert torch.equal(paged, path("bitsandbytes.optim.AdamW8bit"))


# --- Adafactor ------------------------------------------------------------------------------------------------------


def relative_step(optimizer: torch.optim.Optimizer, gradient: Tensor) -> float:
    (parameter,) = optimizer.param_groups[0]["params"]
    before = parameter.detach().float().clone()
    parameter.grad = gradient.to(parameter.dtype)
    optimizer.step()
    return float((parameter.detach().float() - before).norm() / before.norm())


@pytest.mark.parametrize(("eps", "step"), [(None, 0.0), (1e-15, 0.1)])
def test_small_gradients_of_bfloat16_weights_move_nothing_in_pytorchs_adafactor_unless_eps_is_set(
    eps: float | None, step: float
) -> None:
    parameter = nn.Parameter(torch.full((8, 8), 0.125, dtype=torch.bfloat16))
    optimizer = make("torch.optim.Adafactor", [parameter], lr=0.1, eps=(eps, 0.001))
    assert relative_step(optimizer, torch.full((8, 8), 0.0001)) == pytest.approx(step, rel=0.02)


@pytest.mark.parametrize(("eps", "is_finite"), [(1e-30, False), (1e-15, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_papers_eps_in_pytorchs_adafactor_turns_a_gradient_of_zero_into_nan(
    eps: float, is_finite: bool, dtype: torch.dtype
) -> None:
    parameter = weights(4, 4, dtype=dtype)
    optimizer = make("torch.optim.Adafactor", [parameter], eps=(eps, 0.001))  # which is squared: 1e-60 is 0 in float32
    gradient = torch.ones(4, 4)
    gradient[1] = 0.0
    relative_step(optimizer, gradient)
    assert bool(torch.isfinite(parameter).all()) is is_finite


def test_the_rate_of_pytorchs_adafactor_is_no_more_than_the_inverse_root_of_the_step() -> None:
    optimizers = [make("torch.optim.Adafactor", [nn.Parameter(torch.ones(4, 4))], lr=lr) for lr in (1.0, 100.0)]
    for step in range(1, 10):
        small, large = (relative_step(optimizer, -torch.ones(4, 4)) for optimizer in optimizers)
        assert small == large == pytest.approx(step**-0.5, rel=1e-4)


def test_schedulers_crash_on_the_null_rate_of_relative_step() -> None:
    optimizer = make("transformers.optimization.Adafactor", [weights(2, 2)])
    assert optimizer.param_groups[0]["lr"] is None
    with pytest.raises(TypeError, match="NoneType"):
        LambdaLR(optimizer, lambda _: 0.5)


@pytest.mark.parametrize("name", RELOADED_COARSER)
def test_state_comes_back_in_the_type_of_bfloat16_weights(name: str) -> None:
    config = yaml.safe_load((FILES / f"{name}.yaml").read_text())
    arguments = {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key in ("lr", "eps")
    }
    optimizer = make(config["_target_"], [weights(4, 4, dtype=torch.bfloat16)], **arguments)
    step_once(optimizer)
    assert torch.bfloat16 not in dtypes(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert torch.float32 not in dtypes(optimizer)


def dtypes(optimizer: torch.optim.Optimizer) -> set[torch.dtype]:
    (state,) = optimizer.state.values()
    return {value.dtype for value in state.values() if isinstance(value, Tensor) and value.numel() > 1}


# --- Rates that are tensors -----------------------------------------------------------------------------------------


def test_soap_changes_a_rate_that_is_a_tensor() -> None:
    optimizer = make("pytorch_optimizer.SOAP", [weights(4, 4)], lr=torch.tensor(0.01))
    follow(optimizer)
    assert optimizer.param_groups[0]["lr"].item() != pytest.approx(0.01, rel=0.01)


def test_schedule_free_radam_goes_nan_with_a_rate_that_is_a_tensor() -> None:
    ends = []
    for lr in (torch.tensor(0.01), 0.01):
        parameter = weights(4, 4)
        optimizer = make("schedulefree.RAdamScheduleFree", [parameter], lr=lr)
        optimizer.train()  # type: ignore[attr-defined]
        ends.append(follow(optimizer, num_steps=1))
    assert ends[0].isnan().all()
    assert ends[1].isfinite().all()


@pytest.mark.usefixtures("_uncompiled")
def test_the_rate_of_torchao_is_a_tensor_that_takes_no_number() -> None:
    optimizer = make("torchao.optim.AdamW4bit", [weights(2, 2)], lr=0.01)
    step_once(optimizer)
    assert optimizer.param_groups[0]["lr"].item() == pytest.approx(0.01)
    optimizer.param_groups[0]["lr"] = 0.02
    with pytest.raises(RuntimeError, match=r"\['lr'\]\.fill_"):
        step_once(optimizer)


# --- Modes, groups, arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_schedule_free_steps_in_train_mode_alone(name: str) -> None:
    optimizer = make(f"schedulefree.{name}", [weights(2, 2)])
    with pytest.raises(Exception, match="train mode"):
        step_once(optimizer)
    optimizer.train()  # type: ignore[attr-defined]
    step_once(optimizer)
    optimizer.eval()  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="train mode"):
        step_once(optimizer)


@pytest.mark.parametrize("target", NEEDS_MATRICES)
def test_a_low_rank_optimizer_is_plain_adamw_without_a_rank(target: str) -> None:
    options = {"lr": 0.01, "eps": 0.0}
    plain = path("torch.optim.AdamW", weight_decay=0.0, **options)
    torch.testing.assert_close(path(target, **options), plain)
    parameter = weights(64, 64)
    torch.manual_seed(0)
    low_rank = follow(make(target, [{"params": [parameter], **LOW_RANK}], **options), held=parameter)
    assert not torch.allclose(low_rank, plain)
    with pytest.raises(UsageError, match=r"plain Adam without optimizer\.matrices\.rank"):
        check(optimizer_component({"name": "mine", "_target_": target, "lr": 0.01}))


def test_updates_of_pytorch_optimizers_apollo_have_the_rank_of_its_projection() -> None:
    parameter = weights(64, 64)
    before = parameter.detach().clone()
    torch.manual_seed(0)
    optimizer = make("pytorch_optimizer.APOLLO", [{"params": [parameter], **LOW_RANK}])
    follow(optimizer, num_steps=1, held=parameter)
    assert int(torch.linalg.matrix_rank(parameter.detach() - before, rtol=1e-4)) == LOW_RANK["rank"]


@pytest.mark.parametrize(
    ("target", "climbs"), [("pytorch_optimizer.APOLLO", True), ("optbench.optim.apollo.APOLLO", False)]
)
def test_as_apollo_mini_pytorch_optimizers_apollo_climbs_out_of_a_bowl_that_the_papers_descends(
    target: str, climbs: bool
) -> None:
    parameter, bottom = nn.Parameter(torch.zeros(64, 64)), weights(64, 64).detach()
    mini = {"rank": 1, "update_proj_gap": 200, "scale": 128.0, "scale_type": "tensor", "projection_type": "std"}
    torch.manual_seed(0)
    optimizer = make(target, [{"params": [parameter], **mini}], lr=0.01)
    losses = []
    for _ in range(100):
        parameter.grad = (parameter - bottom).detach()
        optimizer.step()
        losses.append(float((parameter - bottom).detach().square().sum() / bottom.square().sum()))
    assert (max(losses) > 100.0) is climbs
    assert (losses[-1] < 0.1) is not climbs


def test_arguments_that_pytorch_optimizer_takes_and_does_not_know_are_refused_here() -> None:
    make("pytorch_optimizer.SOAP", [weights(2, 2)], wieght_decay=0.1)
    config = {"name": "soap", "_target_": "pytorch_optimizer.SOAP", "lr": 0.01, "wieght_decay": 0.1}
    with pytest.raises(
        UsageError, match=r"unknown key 'optimizer.wieght_decay'.*Did you mean 'optimizer.weight_decay'"
    ):
        check(optimizer_component(config))


@pytest.mark.parametrize(
    ("sides", "compute_steps", "is_sgd"),
    [((32, 32), 1000, True), ((32, 32), 10, False), ((16, 32), 10, True)],  # a block of 512 values is a vector to it
)
def test_scalable_shampoo_is_sgd_until_it_computes_the_preconditioners_and_in_small_matrices(
    sides: tuple[int, int], compute_steps: int, is_sgd: bool
) -> None:
    shampoo = make(
        "pytorch_optimizer.ScalableShampoo", [weights(*sides)], lr=0.01, preconditioning_compute_steps=compute_steps
    )
    sgd = make("torch.optim.SGD", [weights(*sides)], lr=0.01, momentum=0.9, nesterov=True)
    assert torch.allclose(follow(shampoo, num_steps=60), follow(sgd, num_steps=60), atol=1e-4) is is_sgd


@pytest.mark.parametrize(
    ("target", "groups"), [("pytorch_optimizer.APOLLO", LOW_RANK), ("pytorch_optimizer.SophiaH", {"p": 100.0})]
)
def test_some_optimizers_draw_from_torchs_own_generator(target: str, groups: dict[str, Any]) -> None:
    def end(seed: int) -> Tensor:
        parameter = weights(8, 8)
        optimizer = make(target, [{"params": [parameter], **groups}], lr=0.01)
        torch.manual_seed(seed)
        for _ in range(2):
            (parameter.grad,) = torch.autograd.grad((parameter**4).sum(), parameter, create_graph=True)
            optimizer.step()
            optimizer.zero_grad()  # the gradient and its graph hold each other
        return parameter.detach().clone()

    assert torch.equal(end(0), end(0))
    assert not torch.equal(end(0), end(1))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 3, 3)])
def test_muon_takes_matrices_alone(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="only supports 2D"):
        make("torch.optim.Muon", [weights(*shape)])


# --- MoMo -----------------------------------------------------------------------------------------------------------


def towards_1(optimizer: torch.optim.Optimizer, *, num_steps: int = 3) -> list[Tensor]:
    """The parameters after steps on half the square of their distance to 1."""
    params = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def closure() -> Tensor:
        for parameter in params:
            parameter.grad = parameter.detach() - 1.0
        return torch.stack([0.5 * (parameter.detach() - 1.0).square().sum() for parameter in params]).sum()

    for _ in range(num_steps):
        optimizer.step(closure)  # type: ignore[arg-type]
    return [parameter.detach().clone() for parameter in params]


@pytest.mark.parametrize("target", ["momo.Momo", "momo.MomoAdam"])
def test_a_group_of_momo_steps_as_if_its_decay_were_that_of_all(target: str) -> None:
    def moved(*decays: float) -> list[Tensor]:
        params = [weights(4), weights(3, 2)]
        groups = [{"params": [one], "weight_decay": decay} for one, decay in zip(params, decays, strict=True)]
        return towards_1(make(target, groups, lr=10.0), num_steps=1)

    def alone(decay: float) -> list[Tensor]:
        return towards_1(make(target, [weights(4), weights(3, 2)], lr=10.0, weight_decay=decay), num_steps=1)

    with pytest.warns(UserWarning, match="More than one param group"):
        found = moved(0.0, 0.1)
    torch.testing.assert_close(found, [alone(0.0)[0], alone(0.1)[1]])
    assert not torch.allclose(alone(0.0)[1], alone(0.1)[1])


def test_momo_needs_a_gradient_of_each_parameter_and_momo_adam_does_not() -> None:
    def step(target: str) -> None:
        with_gradient, without = weights(2), weights(2)
        with_gradient.grad = torch.ones(2)
        make(target, [with_gradient, without]).step(loss=torch.ones(()))  # type: ignore[call-overload]

    step("momo.MomoAdam")
    with pytest.raises(AttributeError, match="NoneType"):
        step("momo.Momo")


def test_after_a_reload_momo_goes_on_as_a_new_one() -> None:
    parameter = weights(4)
    optimizer = make("momo.Momo", [parameter], lr=0.1)
    towards_1(optimizer)
    again, anew = (nn.Parameter(parameter.detach().clone()) for _ in range(2))
    reloaded = make("momo.Momo", [again], lr=0.1)
    reloaded.load_state_dict(optimizer.state_dict())
    (ours,), (new,) = towards_1(reloaded), towards_1(make("momo.Momo", [anew], lr=0.1))
    assert torch.equal(ours, new)
    assert not torch.equal(ours, towards_1(optimizer)[0])


@pytest.mark.parametrize(("target", "num_averages"), [("momo.Momo", 1), ("momo.MomoAdam", 2)])
def test_the_state_of_momo_beside_that_of_its_parameters_counts_no_bytes(target: str, num_averages: int) -> None:
    optimizer = make(target, [weights(8)], use_fstar=True)
    towards_1(optimizer)
    assert {key for key in optimizer.state if isinstance(key, str)} == {"step_size_list", "fstar"}
    assert state_bytes(optimizer) == 4 * 8 * num_averages + 4
    assert low_bit_share(optimizer) == 0.0


# --- Memory ---------------------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))


def vit() -> nn.Module:
    """The parameters of a vision transformer for CIFAR-10: patches of 4, width 512, 6 layers, 9.5 million in all."""
    tokens = nn.ParameterDict({"position": torch.zeros(1, 65, 512), "class": torch.zeros(1, 1, 512)})
    layers: list[nn.Module] = []
    for _ in range(6):
        attention = [nn.LayerNorm(512), nn.Linear(512, 3 * 512, bias=False), nn.Linear(512, 512)]
        layers += [*attention, nn.LayerNorm(512), nn.Linear(512, 512), nn.Linear(512, 512)]
    return nn.Sequential(nn.Linear(48, 512), tokens, *layers, nn.LayerNorm(512), nn.Linear(512, 10))


@pytest.mark.parametrize(
    ("target", "arguments", "of_mlp", "of_vit"),
    [
        ("torch.optim.Adam", {"amsgrad": True}, 3.0, 3.0),
        ("torch.optim.Adafactor", {}, 0.0157, 0.0057),
        ("bitsandbytes.optim.AdamW8bit", {}, 0.528, 0.511),
        ("prodigyopt.Prodigy", {}, 4.0, None),
        ("prodigyopt.Prodigy", {"slice_p": 11}, 2.18, None),
    ],
)
def test_state_takes_the_share_of_the_parameters_that_its_method_needs(
    target: str, arguments: dict[str, Any], of_mlp: float, of_vit: float | None
) -> None:
    for model, expected in ((mlp, of_mlp), (vit, of_vit)):
        if expected is None:
            continue
        parameters = list(model().parameters())
        optimizer = make(target, parameters, **arguments)
        step_once(optimizer)
        maps = 2 * 256 * 4 if "8bit" in target else 0  # once, however large the model
        share = (state_bytes(optimizer) - maps) / sum(4 * parameter.numel() for parameter in parameters)
        assert share == pytest.approx(expected, rel=0.04)  # small shares hang on each vector


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize(
    ("target", "num_values", "bytes_each"),
    [
        ("AdamW4bit", 4096, (2 * 4096 / 2 + 2 * 4096 / 128 * 4 + 2 * 16 * 4 + 4) / 4096),
        ("AdamW4bit", 4224, (2 * 4224 / 2 + 2 * 4224 / 128 * 4 + 2 * 16 * 4 + 4) / 4224),
        ("AdamWFp8", 4096, (2 * 4096 + 2 * 4096 / 256 * 4 + 4) / 4096),
        ("AdamWFp8", 4224, 8 + 4 / 4224),
        ("AdamW4bit", 4095, 8 + 4 / 4095),
        ("AdamW4bit", 5000, 8 + 4 / 5000),
    ],
)
def test_torchao_quantises_what_its_blocks_divide(target: str, num_values: int, bytes_each: float) -> None:
    optimizer = make(f"torchao.optim.{target}", [weights(num_values)])
    step_once(optimizer)
    assert state_bytes(optimizer) / num_values == pytest.approx(bytes_each)
    assert low_bit_share(optimizer) == (bytes_each < 8)
