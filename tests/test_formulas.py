"""The formula in a file's header is what its class does: for each method that has no rule in optbench.optim.rules.

A reference is the update of one tensor, in plain lines, at the arguments of the file. Where the class parts from its
paper or from its authors' code, a test shows the step.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from optbench.component import Capability, OptimizerComponent, optimizer_component
from optbench.components import locate
from optbench.optim.build import build, check
from tests.conftest import MakeTrial

FILES = Path(__file__).parent.parent / "conf" / "optimizer"
NUM_STEPS = 30
MATRIX, WIDE, VECTOR = (40, 30), (30, 40), (7,)

Grads = Sequence[Tensor]
Reference = Callable[[Tensor, Grads, Any], Iterator[Tensor]]


def load(name: str, **given: Any) -> OptimizerComponent:
    """The optimizer of a file, with these arguments in place of its own."""
    component = optimizer_component({**yaml.safe_load((FILES / f"{name}.yaml").read_text()), **given})
    pytest.importorskip(component.target.partition(".")[0])
    return component


def start(shape: tuple[int, ...], *, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def tape(shape: tuple[int, ...], *, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(NUM_STEPS)]


def optimizer_of(name: str, params: Sequence[Any], **given: Any) -> torch.optim.Optimizer:
    component = load(name, **given)
    optimizer = locate(component, group="optimizer")(params, **component.arguments)
    assert isinstance(optimizer, torch.optim.Optimizer)
    if Capability.TRAIN_EVAL in component.capabilities:
        optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def of_class(name: str, theta: Tensor, grads: Grads, **given: Any) -> list[Tensor]:
    """Where the class goes, step by step."""
    param = nn.Parameter(theta.clone())
    matrices = load(name, **given).matrices if theta.ndim == 2 else {}
    optimizer = optimizer_of(name, [{"params": [param], **matrices}], **given)
    path = []
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
        path.append(param.detach().clone())
    return path


def of_formula(name: str, theta: Tensor, grads: Grads, **given: Any) -> list[Tensor]:
    """Where the reference goes at the same arguments."""
    component = load(name, **given)
    return list(REFERENCES[name](theta, grads, SimpleNamespace(**component.arguments, **component.matrices)))


def parts_at(ours: Grads, theirs: Grads, *, theta: Tensor, tolerance: float = 1e-8) -> int | None:
    """The first step after which two paths differ, relative to the way gone from theta."""
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        if not (one - other).abs().max() <= tolerance * (other - theta).abs().max():
            return step
    return None


# The references. `a` holds the arguments.


def adam_like(m: Tensor, v: Tensor, *, t: int, betas: Sequence[float], eps: float, inside: bool = False) -> Tensor:
    """Adam's update of two averages, with eps inside the bias correction or outside."""
    m, correction = m / (1 - betas[0] ** t), math.sqrt(1 - betas[1] ** t)
    return m / ((v.sqrt() + eps) / correction) if inside else m / (v.sqrt() / correction + eps)


def adan(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    (b1, b2, b3), before, m, d, n = a.betas, grads[0], 0.0, 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        m, d = b1 * m + (1 - b1) * g, b2 * d + (1 - b2) * (g - before)
        n, before = b3 * n + (1 - b3) * (g + b2 * (g - before)) ** 2, g
        u = (m / (1 - b1**t) + b2 * d / (1 - b2**t)) / ((n / (1 - b3**t)).sqrt() + a.eps)
        yield (theta := (theta - a.lr * u) / (1 + a.lr * a.weight_decay))


def ademamix(theta: Tensor, grads: Grads, a: Any, *, decoupled: bool = False) -> Iterator[Tensor]:
    (b1, b2, b3), fast, slow, v = a.betas, 0.0, 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        g = g if decoupled else g + a.weight_decay * theta
        fast, slow, v = b1 * fast + (1 - b1) * g, b3 * slow + (1 - b3) * g, b2 * v + (1 - b2) * g**2
        u = (fast / (1 - b1**t) + a.alpha * slow) / ((v / (1 - b2**t)).sqrt() + a.eps)
        yield (theta := theta - a.lr * (u + a.weight_decay * theta if decoupled else u))


def adopt(
    theta: Tensor, grads: Grads, a: Any, *, clip: Callable[[int], float] = lambda t: t**0.25, first: bool = True
) -> Iterator[Tensor]:
    """`first`: whether the first step decays."""
    (b1, b2), m, v = a.betas, 0.0, torch.zeros(())
    for t, g in enumerate(grads, start=1):
        decay = a.weight_decay if t > 1 or first else 0.0
        g = g if a.weight_decouple else g + decay * theta
        theta = theta - a.lr * decay * theta if a.weight_decouple else theta
        if t > 1:
            m = b1 * m + (1 - b1) * (g / v.sqrt().clamp(min=a.eps)).clamp(-clip(t), clip(t))
            theta = theta - a.lr * m
        v = g**2 if t == 1 else b2 * v + (1 - b2) * g**2
        yield theta


def came(theta: Tensor, grads: Grads, a: Any, *, vectors_too: bool = False) -> Iterator[Tensor]:
    """`vectors_too`: with the confidence factor in vectors."""
    (b1, b2, b3), m = a.betas, 0.0
    averages: dict[str, list[Any]] = {}

    def average(key: str, squares: Tensor, beta: float) -> Tensor:
        sides = [squares.mean(1, keepdim=True), squares.mean(0, keepdim=True)] if theta.ndim == 2 else [squares]
        kept: list[Tensor] = [
            beta * old + (1 - beta) * new for old, new in zip(averages.get(key, [0.0, 0.0]), sides, strict=False)
        ]
        averages[key] = kept
        return kept[0] / kept[0].mean() * kept[1] if theta.ndim == 2 else kept[0]

    for g in grads:
        u = g / average("v", g**2 + a.eps[0], b2).sqrt()
        u = u / (u.square().mean().sqrt() / a.clip_threshold).clamp(min=1.0)
        m = b1 * m + (1 - b1) * u
        confidence = average("S", (u - m) ** 2 + a.eps[1], b3).sqrt()
        update = m / confidence if theta.ndim == 2 or vectors_too else m
        yield (theta := theta - a.lr * (update + a.weight_decay * theta))


def dadapt_adam(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    (b1, b2), d, m, v, s, r = a.betas, a.d0, torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros(()), 0.0
    root = math.sqrt(b2)
    for g in grads:
        g = g + a.weight_decay * theta
        r = root * r + (1 - root) * d * a.lr * (g * s / (v.sqrt() + a.eps)).sum()
        m, v = b1 * m + (1 - b1) * d * a.lr * g, b2 * v + (1 - b2) * g**2
        s = root * s + (1 - root) * d * a.lr * g
        d = max(d, min(float(r / ((1 - root) * s.abs().sum())), d * a.growth_rate))
        yield (theta := theta - m / (v.sqrt() + a.eps))


def dadapt_lion(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    (b1, b2), d, m, s, r = a.betas, a.d0, 0.0, torch.zeros(()), 0.0
    root = math.sqrt(b2)
    for g in grads:
        rate, c = d * a.lr, (b1 * m + (1 - b1) * g).sign()
        theta = theta - rate * (c + a.weight_decay * theta)
        m, r = b2 * m + (1 - b2) * rate * g, root * r + (1 - root) * rate * (c * s).sum()
        s = root * s + (1 - root) * rate * c
        d = max(d, float(r / ((1 - root) * s.abs().sum())))
        yield theta


def dadapt_sgd(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    first, d, s, r, start = grads[0].norm(), a.d0, torch.zeros(()), 0.0, theta  # `first`: without the decay
    for g in grads:
        rate, g = d * a.lr / first, g + a.weight_decay * theta
        r, s = r + rate * (g * s).sum(), s + rate * g
        d = max(d, min(float(2 * r / s.norm()), d * a.growth_rate))
        yield (theta := a.momentum * theta + (1 - a.momentum) * (start - s))


def galore(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    m, v, p, is_wide = 0.0, 0.0, None, theta.ndim == 2 and theta.shape[0] < theta.shape[1]
    for t, g in enumerate(grads, start=1):
        if theta.ndim == 2 and (p is None or t % a.update_proj_gap == 0):
            left, _, right = torch.linalg.svd(g.float(), full_matrices=False)
            p = (left[:, : a.rank] if is_wide else right[: a.rank].T).double()
        low = g if p is None else p.T @ g if is_wide else g @ p
        m, v = a.betas[0] * m + (1 - a.betas[0]) * low, a.betas[1] * v + (1 - a.betas[1]) * low**2
        u = adam_like(m, v, t=t, betas=a.betas, eps=a.eps, inside=True)
        u = u if p is None else a.scale * (p @ u if is_wide else u @ p.T)
        yield (theta := (theta - a.lr * u) * (1 - a.lr * a.weight_decay))


def lamb(theta: Tensor, grads: Grads, a: Any, *, corrected: str = "outside") -> Iterator[Tensor]:
    """`corrected`: where m and v are, "nowhere" as in the paper's third version, "inside" as in its last."""
    (b1, b2), m, v = a.betas, 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        theta = theta * (1 - a.lr * a.weight_decay) if a.weight_decouple else theta
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = adam_like(m, v, t=t, betas=a.betas, eps=a.eps) if corrected == "inside" else m / (v.sqrt() + a.eps)
        u = u if a.weight_decouple else u + a.weight_decay * theta
        lr = a.lr / (1 - b1**t) if corrected == "outside" else a.lr
        yield (theta := theta - lr * theta.norm().clamp(max=10.0) / (u.norm() + a.eps) * u)


def lars(theta: Tensor, grads: Grads, a: Any, *, rates: Sequence[float] = ()) -> Iterator[Tensor]:
    """`rates`: of each step, inside v as the paper has them."""
    v: Any = 0.0
    for step, g in enumerate(grads):
        if theta.ndim > 1:
            ratio = a.trust_coefficient * theta.norm() / (g.norm() + a.weight_decay * theta.norm())
            g = ratio * (g + a.weight_decay * theta)
        v = a.momentum * v + (rates[step] if rates else 1.0) * g
        yield (theta := theta - (1.0 if rates else a.lr) * v)


def mars(theta: Tensor, grads: Grads, a: Any, *, as_authors: bool = False) -> Iterator[Tensor]:
    m, v, before, is_vector = 0.0, 0.0, torch.zeros_like(theta), theta.ndim == 1
    betas, lr = (a.betas_1d, a.lr_1d) if is_vector else (a.betas, a.lr)
    decay = a.weight_decay_1d if is_vector else a.weight_decay
    for t, g in enumerate(grads, start=1):
        c = g if is_vector else g + a.gamma * betas[0] / (1 - betas[0]) * (g - before)
        c, before = c if is_vector else c / c.norm().clamp(min=1.0), g
        m, v = betas[0] * m + (1 - betas[0]) * c, betas[1] * v + (1 - betas[1]) * c**2
        u = adam_like(m, v + (0.0 if as_authors else 1e-15), t=t, betas=betas, eps=a.eps, inside=not as_authors)
        yield (theta := theta - lr * (u + decay * theta))


def muon(theta: Tensor, grads: Grads, a: Any, *, as_jordan: bool = False) -> Iterator[Tensor]:
    """`as_jordan`: with momentum that accumulates, as the author's code has it."""
    m, (x, y, z) = torch.zeros_like(theta), a.ns_coefficients
    rows, columns = theta.shape
    for g in grads:
        new = 1.0 if as_jordan else 1 - a.momentum
        m = a.momentum * m + new * g
        o = (new * g + a.momentum * m).bfloat16()
        o = o.T if rows > columns else o
        o = o / o.norm().clamp(min=a.eps)
        for _ in range(a.ns_steps):
            gram = o @ o.T
            o = torch.addmm(o, torch.addmm(gram, gram, gram, beta=y, alpha=z), o, beta=x)
        o = o.T if rows > columns else o
        yield (theta := theta - a.lr * (math.sqrt(max(1.0, rows / columns)) * o.double() + a.weight_decay * theta))


def schedulefree_adamw(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    x, z, v = theta, theta, 0.0
    for t, g in enumerate(grads, start=1):
        v = a.betas[1] * v + (1 - a.betas[1]) * g**2
        z = z - a.lr * (g / ((v / (1 - a.betas[1] ** t)).sqrt() + a.eps) + a.weight_decay * theta)
        x = x + (z - x) / t
        yield (theta := (1 - a.betas[0]) * z + a.betas[0] * x)


def schedulefree_sgd(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    x, z = theta, theta
    for t, g in enumerate(grads, start=1):
        z = z - a.lr * (g + a.weight_decay * theta)
        x = x + (z - x) / t
        yield (theta := (1 - a.momentum) * z + a.momentum * x)


def shampoo(theta: Tensor, grads: Grads, a: Any, *, beta2: float | None = None, new: float | None = None) -> Any:
    """`beta2` and `new`: what L and R keep of themselves, and what of each gradient they take."""
    beta2 = a.betas[1] if beta2 is None else beta2
    sides = [a.matrix_eps * torch.eye(side, dtype=theta.dtype) for side in theta.shape]
    roots, m, sgd, is_plain = None, 0.0, 0.0, theta.numel() <= a.block_size
    for t, g in enumerate(grads, start=1):
        p = g
        if not is_plain:
            squares = [g @ g.T, g.T @ g]
            sides = [
                beta2 * old + (1 - beta2 if new is None else new) * s for old, s in zip(sides, squares, strict=True)
            ]
            if t % a.preconditioning_compute_steps == 0:
                found = [torch.linalg.eigh(side) for side in sides]
                roots = [vectors @ (values**-0.25).diag() @ vectors.T for values, vectors in found]
            p = g if roots is None else roots[0] @ g @ roots[1]
        s = g.norm() / p.norm() * p + a.weight_decay * theta
        m, sgd = a.betas[0] * m + s, a.betas[0] * sgd + g + a.weight_decay * theta
        plain = is_plain or t < a.start_preconditioning_step
        yield (theta := theta - a.lr * (g + a.weight_decay * theta + a.betas[0] * sgd if plain else s + a.betas[0] * m))


def soap(theta: Tensor, grads: Grads, a: Any) -> Iterator[Tensor]:
    m, v, beta, sides = 0.0, torch.zeros_like(theta), a.betas[1], [torch.zeros(())] * 2
    turns: list[Tensor] = []
    for t, g in enumerate(grads):  # the first only fills L and R
        if t > 0:
            turned = turns[0].T @ g @ turns[1] if turns else g
            m, v = a.betas[0] * m + (1 - a.betas[0]) * g, beta * v + (1 - beta) * turned**2
            u = adam_like(turns[0].T @ m @ turns[1] if turns else m, v, t=t, betas=a.betas, eps=a.eps, inside=True)
            u = turns[0] @ u @ turns[1].T if turns else u
            theta = (theta - a.lr * u) * (1 - a.lr * a.weight_decay)
        if theta.ndim == 2:
            sides = [beta * side + (1 - beta) * s for side, s in zip(sides, (g @ g.T, g.T @ g), strict=True)]
            turns = turns or [torch.linalg.eigh(side)[1].flip(1) for side in sides]
            for axis in (0, 1) if t > 0 and t % a.precondition_frequency == 0 else ():
                product = sides[axis] @ turns[axis]  # a power iteration, from the largest direction to the smallest
                order = (turns[axis] * product).sum(0).argsort(descending=True)
                turns[axis] = torch.linalg.qr(product[:, order].float())[0].double()
                v = v.index_select(axis, order)
        yield theta


REFERENCES: dict[str, Reference] = {
    function.__name__: function
    for function in (
        *(adan, ademamix, adopt, came, dadapt_adam, dadapt_lion, dadapt_sgd, galore, lamb, lars, mars, muon),
        *(schedulefree_adamw, schedulefree_sgd, shampoo, soap),
    )
}
# Why a file without a rule has no reference here.
ELSEWHERE = {
    **dict.fromkeys(("adam8bit", "adamw4bit", "adamw8bit", "adamwfp8", "lion8bit", "paged_adamw8bit"), "departs"),
    **dict.fromkeys(("apollo", "apollo_mini"), "tests/test_apollo.py"),
    **dict.fromkeys(("palm_adafactor", "sam"), "tests/test_own_methods.py"),
    **dict.fromkeys(("ademamix8bit", "lbfgs", "momo", "momo_adam", "sophia"), "below"),
    "custom": "no formula",
}
# Where a file's own arguments compute less exactly than 1e-8.
EXACT: dict[str, dict[str, Any]] = {"shampoo": {"use_svd": True}}
TOLERANCES = {"soap": 1e-6}  # its bases are refreshed in float32
SHAPES = {"muon": (MATRIX, WIDE), "soap": ((6, 5), (6, 6), VECTOR)}


def test_every_file_has_a_rule_or_its_formula_is_pinned() -> None:
    without_rule = {path.stem for path in FILES.glob("*.yaml") if "rule" not in yaml.safe_load(path.read_text())}
    assert without_rule == {*REFERENCES, *ELSEWHERE}


@pytest.mark.parametrize("weight_decay", [None, 0.1], ids=["as_in_the_file", "with_decay"])
@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name in REFERENCES for shape in SHAPES.get(name, (MATRIX, WIDE, VECTOR))]
)
def test_a_class_does_what_the_formula_says(name: str, shape: tuple[int, ...], weight_decay: float | None) -> None:
    given = EXACT.get(name, {}) | ({} if weight_decay is None else {"weight_decay": weight_decay})
    theta, grads = start(shape), tape(shape)
    ours, theirs = (one(name, theta, grads, **given) for one in (of_class, of_formula))
    assert parts_at(ours, theirs, theta=theta, tolerance=TOLERANCES.get(name, 1e-8)) is None


# What the headers say beside the formula, and where a class parts from its paper or its authors' code.


def against(
    name: str, reference: Reference, *, shape: tuple[int, ...] = MATRIX, scale: float = 1.0, **given: Any
) -> int | None:
    """The step at which the class parts from this form of its method."""
    theta, grads = start(shape), tape(shape, scale=scale)
    theirs = list(reference(theta, grads, SimpleNamespace(**load(name, **given).arguments)))
    return parts_at(of_class(name, theta, grads, **given), theirs, theta=theta)


def way(name: str, steps: int, *, shape: tuple[int, ...] = MATRIX, **given: Any) -> list[float]:
    """How far each step goes, root mean square."""
    theta = start(shape)
    path = [theta, *of_class(name, theta, tape(shape)[:steps], **given)]
    return [float((after - before).square().mean().sqrt()) for before, after in pairwise(path)]


@pytest.mark.parametrize("corrected", ["nowhere", "inside"])
def test_lamb_starts_at_ten_times_the_rate_which_neither_form_of_its_paper_does(corrected: str) -> None:
    assert against("lamb", partial(lamb, corrected=corrected)) == 1
    size = float(start(MATRIX).norm())
    steps = [step * math.sqrt(1200) / (0.001 * min(size, 10.0)) for step in way("lamb", 10)]
    assert [steps[0], steps[9]] == pytest.approx([10.0, 1.535], rel=1e-3)


@pytest.mark.parametrize(
    ("corrected", "given"),
    [("nowhere", {"weight_decay": 0.1, "weight_decouple": False}), ("inside", {"eps": 1e-30})],
    ids=["third_version", "last_version_without_decay_but_for_eps"],
)
def test_with_adam_debias_lamb_is_as_its_paper_has_it(corrected: str, given: dict[str, Any]) -> None:
    assert against("lamb", partial(lamb, corrected=corrected), adam_debias=True, **given) is None


def test_adam_debias_can_be_given_to_lamb(make_trial: MakeTrial) -> None:
    trial = make_trial("optimizer=lamb", "+optimizer.adam_debias=true", "optimizer.weight_decouple=false")
    check(trial.optimizer)
    assert trial.optimizer.arguments["adam_debias"] is True


@pytest.mark.parametrize(
    ("reference", "decouple", "step"),
    [
        (partial(adopt, clip=lambda t: (t - 1) ** 0.25), False, 2),  # the clip
        (partial(adopt, first=False), True, 1),  # the decay
        (partial(adopt, clip=lambda t: (t - 1) ** 0.25, first=False), True, 1),  # both, as the authors have it
    ],
)
def test_adopt_is_a_step_ahead_of_its_authors(reference: Reference, decouple: bool, step: int) -> None:
    assert against("adopt", reference, weight_decay=0.1, weight_decouple=decouple) == step


def test_the_preset_of_adopt_decays_in_its_first_step() -> None:
    theta, (grad, *_) = start(MATRIX), tape(MATRIX)
    config = yaml.safe_load((FILES / "preset" / "epfl_adopt.yaml").read_text())["optimizer"]
    given = {key: config[key] for key in ("lr", "weight_decay", "weight_decouple")}
    (moved,) = of_class("adopt", theta, [grad], **given)
    torch.testing.assert_close(moved, theta * (1 - 0.001 * 0.1))


def test_came_has_no_confidence_factor_in_vectors_and_its_averages_start_at_0() -> None:
    assert against("came", partial(came, vectors_too=True), shape=VECTOR) == 1
    assert way("came", 1)[0] == pytest.approx(11.1 * 0.0002, rel=0.01)
    assert way("came", 1, shape=VECTOR)[0] == pytest.approx(0.1 * 0.0002)


@pytest.mark.parametrize(
    ("shape", "step"), [((16, 32), None), (VECTOR, None), ((512,), None), ((513,), 25), (MATRIX, 25)]
)
def test_shampoo_is_nesterov_sgd_until_step_25_and_for_ever_in_512_entries(
    shape: tuple[int, ...], step: int | None
) -> None:
    theta, grads = start(shape), tape(shape)
    sgd = of_class("nesterov", theta, grads, lr=0.001, momentum=0.9)
    assert parts_at(of_class("shampoo", theta, grads), sgd, theta=theta) == step


def test_the_roots_of_shampoo_are_averages_and_good_to_four_digits() -> None:
    assert against("shampoo", partial(shampoo, beta2=1.0, new=1.0), use_svd=True) == 25  # the paper's sums
    theta, grads = start(MATRIX), tape(MATRIX)
    ours, exact = of_class("shampoo", theta, grads), of_formula("shampoo", theta, grads)
    assert parts_at(ours, exact, theta=theta, tolerance=1e-4) is None


def test_mars_adds_its_eps_inside_the_bias_correction_and_its_authors_outside() -> None:
    assert against("mars", partial(mars, as_authors=True)) == 1
    theta, grads = start(MATRIX), tape(MATRIX, scale=1e-6)[:1]
    (ours,), arguments = of_class("mars", theta, grads), SimpleNamespace(**load("mars").arguments)
    (theirs,) = mars(theta, grads, arguments, as_authors=True)
    assert float((ours - theirs).norm() / (theirs - theta).norm()) == pytest.approx(0.29, abs=0.01)


def test_vectors_of_mars_decay_by_a_tenth_of_their_rate_without_weight_decay() -> None:
    (moved,) = of_class("mars", start(VECTOR), [torch.zeros_like(start(VECTOR))], weight_decay=0.0, lr_1d=0.01)
    torch.testing.assert_close(moved, start(VECTOR) * (1 - 0.01 * 0.1))


def test_muon_goes_along_nearly_orthogonal_matrices_as_with_the_accumulating_momentum_of_its_author() -> None:
    theta, grads = start(MATRIX), tape(MATRIX)
    ours = of_class("muon", theta, grads, weight_decay=0.0)
    turned = torch.linalg.svdvals((theta - ours[0]) / 0.001) / math.sqrt(40 / 30)
    assert 0.5 < turned.min() <= turned.max() < 1.5
    theirs = list(muon(theta, grads, SimpleNamespace(**load("muon", weight_decay=0.0).arguments), as_jordan=True))
    assert parts_at(ours, theirs, theta=theta, tolerance=0.05) is None  # but for the rounding to bfloat16


def test_the_companion_of_muon_gets_convolution_kernels() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2))
    hidden, others = build(load("muon"), model).param_groups
    assert hidden["params"] == [model[3].weight]
    assert any(param is model[1].weight for param in others["params"])


def test_the_companion_of_muon_adds_eps_outside_the_bias_correction_and_epfls_adamw_inside() -> None:
    config = yaml.safe_load((FILES / "preset" / "epfl_dmuon.yaml").read_text())["optimizer"]["companion"]
    assert config["_target_"] == load("adamw").target
    given = {"lr": config["lr"], "eps": config["eps"], "betas": [0.9, 0.99], "weight_decay": 0.0}
    theta, grads = start(MATRIX), tape(MATRIX, scale=1e-6)

    def adamw(*, inside: bool) -> Iterator[Tensor]:
        m, v, at = torch.zeros_like(theta), torch.zeros_like(theta), theta
        for t, g in enumerate(grads, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
            yield (at := at - 0.001 * adam_like(m, v, t=t, betas=(0.9, 0.99), eps=1e-8, inside=inside))

    ours = of_class("adamw", theta, grads, **given)
    assert parts_at(ours, list(adamw(inside=False)), theta=theta) is None
    assert parts_at(ours, list(adamw(inside=True)), theta=theta, tolerance=0.01) == 1


@pytest.mark.parametrize("shape", [MATRIX, WIDE])
def test_galore_looks_for_its_subspace_again_at_each_multiple_of_the_gap(shape: tuple[int, ...]) -> None:
    theta, grads = start(shape), tape(shape)
    matrices = {"rank": 5, "update_proj_gap": 10, "scale": 0.5, "projection_type": "std"}
    ours, theirs = (one("galore", theta, grads, matrices=matrices) for one in (of_class, of_formula))
    assert parts_at(ours, theirs, theta=theta) is None
    kept = of_formula("galore", theta, grads, matrices={**matrices, "update_proj_gap": 200})
    assert parts_at(ours, kept, theta=theta) == 10


def test_lars_has_the_rate_outside_of_its_momentum_and_its_paper_inside() -> None:
    theta, grads = start(MATRIX), tape(MATRIX)
    param = nn.Parameter(theta.clone())
    optimizer = optimizer_of("lars", [param])
    rates, ours = [1.0] * 10 + [0.5] * 20, []
    for rate, grad in zip(rates, grads, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        param.grad = grad.clone()
        optimizer.step()
        ours.append(param.detach().clone())
    papers = list(lars(theta, grads, SimpleNamespace(**load("lars").arguments), rates=rates))
    assert parts_at(ours, papers, theta=theta) == 11


def test_the_decay_of_lion_that_does_not_depend_on_its_rate_does_so_in_a_group_with_its_own() -> None:
    given = {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}
    params = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = optimizer_of("lion", [{"params": params[:1]}, {"params": params[1:], "lr": 0.05}], **given)
    for param in params:
        param.grad = torch.zeros(1)
    optimizer.step()
    assert [param.item() for param in params] == pytest.approx([1 - 0.1, 1 - 0.5])
    (alone,) = of_class("lion", torch.ones(1), [torch.zeros(1)], **{**given, "lr": 0.05})
    assert alone.item() == pytest.approx(1 - 0.1)


def test_sophia_does_what_its_formula_says_on_a_quartic_whose_hessian_is_known() -> None:
    a = SimpleNamespace(**load("sophia").arguments)
    theta = start(MATRIX, scale=0.02)  # some entries are clipped, and some not
    param, m, h = nn.Parameter(theta.clone()), 0.0, torch.zeros_like(theta)
    optimizer = optimizer_of("sophia", [param], weight_decay=0.1)
    for step in range(NUM_STEPS):
        (param.grad,) = torch.autograd.grad((param**4).sum(), param, create_graph=True)
        torch.manual_seed(step)
        optimizer.step()
        optimizer.zero_grad()  # the gradient and its graph hold each other
        torch.manual_seed(step)
        m = a.betas[0] * m + (1 - a.betas[0]) * 4 * theta**3
        if step % a.update_period == 0:
            z = torch.randn_like(theta)
            h = a.betas[1] * h + (1 - a.betas[1]) * z * (12 * theta**2 * z)
        u = (m / h.clamp(min=a.eps)).clamp(-a.p, a.p)
        theta = theta - a.lr * (u + 0.1 * theta)
        torch.testing.assert_close(param.detach(), theta, rtol=1e-8, atol=1e-12)
    assert 0.01 < float((u.abs() < a.p).double().mean()) < 0.99


def test_ademamix8bit_is_the_papers_ademamix_but_for_its_8_bits() -> None:
    arguments = SimpleNamespace(**load("ademamix8bit").arguments)
    for shape, step in ((MATRIX, None), ((64, 64), 2)):  # below 4096 values, state keeps 32 bits
        theta, grads = start(shape), tape(shape)
        theirs = list(ademamix(theta, grads, arguments, decoupled=True))
        ours = [point.double() for point in of_class("ademamix8bit", theta.float(), [grad.float() for grad in grads])]
        assert parts_at(ours, theirs, theta=theta, tolerance=0.001) == step


def test_a_step_of_lbfgs_is_one_iteration_and_its_pairs_compare_gradients_of_two_minibatches() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 1, dtype=torch.float64)
    optimizer = optimizer_of("lbfgs", list(model.parameters()))
    at, seen = [], []
    for _ in range(NUM_STEPS):
        inputs, targets = torch.randn(64, 5, dtype=torch.float64), torch.randn(64, 1, dtype=torch.float64)
        grads: list[Tensor] = []

        def closure(inputs: Tensor = inputs, targets: Tensor = targets, grads: list[Tensor] = grads) -> Tensor:
            optimizer.zero_grad()
            loss = functional.mse_loss(model(inputs), targets)
            loss.backward()
            grads.append(torch.cat([param.grad.flatten() for param in model.parameters() if param.grad is not None]))
            return loss

        at.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
        optimizer.step(closure)  # type: ignore[arg-type]
        assert 2 <= len(grads) <= 3
        seen.append(grads[0])
    (state,) = optimizer.state.values()
    assert state["n_iter"] == NUM_STEPS
    pairs = [(s, y) for before, after in pairwise(zip(at, seen, strict=True)) for s, y in [_pair(before, after)]]
    pairs = [(s, y) for s, y in pairs if y @ s > 1e-10]
    torch.testing.assert_close(torch.stack(state["old_dirs"]), torch.stack([y for _, y in pairs]))
    s, y = pairs[-1]
    inverse = (s @ y) / (y @ y) * torch.eye(6, dtype=torch.float64)
    for s, y in pairs:  # Nocedal's update of the inverse Hessian, written out
        left = torch.eye(6, dtype=torch.float64) - torch.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + torch.outer(s, s) / (s @ y)
    torch.testing.assert_close(state["d"], -inverse @ seen[-1], rtol=1e-8, atol=1e-10)


def least_squares(step: int, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a minibatch and its gradient; another minibatch at each step, with noise."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(32, theta.numel(), generator=generator, dtype=torch.float64)
    rest = inputs @ (theta - start((theta.numel(),))) + torch.randn(32, generator=generator, dtype=torch.float64)
    return rest.square().mean() / 2, inputs.T @ rest / 32


def momo(theta: Tensor, a: Any) -> Iterator[tuple[Tensor, bool]]:
    """Algorithm 1 of MoMo, or 2 where `a` has two betas: the weights after each step, and whether lr bounds it."""
    is_adam = hasattr(a, "betas")
    beta, beta2 = a.betas if is_adam else (a.beta, 0.0)
    is_from_0, factor, lb = is_adam or a.bias_correction, 1 + a.lr * a.weight_decay, a.lb
    f, c, d, v = 0.0, 0.0, torch.zeros_like(theta), torch.zeros_like(theta)
    for k in range(1, NUM_STEPS + 1):
        loss, g = least_squares(k, theta)
        if k == 1 and not is_from_0:
            f, c, d = float(loss), float(g @ theta), g
        f, c = beta * f + (1 - beta) * float(loss), beta * c + (1 - beta) * float(g @ theta)
        d, v = beta * d + (1 - beta) * g, beta2 * v + (1 - beta2) * g**2
        r = 1 - beta**k if is_from_0 else 1.0
        metric = (v / (1 - beta2**k)).sqrt() + a.eps if is_adam else torch.ones_like(theta)
        model, squared = factor * (f - c) + float(d @ theta), float(d @ (d / metric))
        if a.use_fstar and model < factor * r * lb:
            lb = max(model / (2 * factor * r), a.lb)
        t = max(model - factor * r * lb, 0.0) / squared
        is_bound = t > a.lr / r
        t = min(t, a.lr / r)
        if a.use_fstar:
            lb = max((f + float(d @ theta) - c - t * squared / 2) / r, a.lb)
        if getattr(a, "divide", True):
            theta = (theta - t * d / metric) / factor
        else:
            theta = (1 - a.lr * a.weight_decay) * theta - t * d / metric
        yield theta, is_bound


def of_momo(name: str, theta: Tensor, **given: Any) -> list[Tensor]:
    """Where the class goes, its weights in two tensors."""
    params = [nn.Parameter(part.clone()) for part in theta.split(15)]
    optimizer = optimizer_of(name, params, **given)
    path = []
    for step in range(1, NUM_STEPS + 1):

        def closure(step: int = step) -> Tensor:
            loss, gradient = least_squares(step, torch.cat([param.detach() for param in params]))
            for param, part in zip(params, gradient.split(15), strict=True):
                param.grad = part.clone()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        path.append(torch.cat([param.detach() for param in params]).clone())
    return path


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("momo", {"lr": 0.1}),
        ("momo", {"lr": 0.1, "weight_decay": 0.1}),
        ("momo", {"lr": 0.3, "lb": 0.1, "beta": 0.5}),
        ("momo", {"lr": 0.1, "bias_correction": True, "weight_decay": 0.1}),
        ("momo", {"lr": 0.1, "use_fstar": True, "weight_decay": 0.1}),
        ("momo_adam", {"lr": 0.3}),
        ("momo_adam", {"lr": 0.3, "weight_decay": 0.1}),
        ("momo_adam", {"lr": 0.3, "weight_decay": 0.1, "divide": False}),
        ("momo_adam", {"lr": 1.0, "lb": 0.1, "betas": [0.5, 0.9]}),
        ("momo_adam", {"lr": 0.3, "use_fstar": True, "weight_decay": 0.1}),
    ],
    ids=lambda given: given if isinstance(given, str) else "_".join(given),
)
def test_momo_takes_the_step_that_its_model_of_the_loss_allows_and_lr_at_most(name: str, given: dict[str, Any]) -> None:
    theta = start((20,), scale=3.0)
    theirs, are_bound = zip(*momo(theta, SimpleNamespace(**load(name, **given).arguments)), strict=True)
    assert True in are_bound
    assert False in are_bound
    in_float32 = name == "momo_adam" or "bias_correction" in given  # its average of <g, theta>
    ours = of_momo(name, theta, **given)
    assert parts_at(ours, theirs, theta=theta, tolerance=1e-6 if in_float32 else 1e-8) is None


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_a_rate_that_no_step_of_momo_reaches_has_no_effect(name: str) -> None:
    theta = start((20,), scale=3.0)
    far, farther = (of_momo(name, theta, lr=lr) for lr in (1e3, 1e6))
    assert all(map(torch.equal, far, farther))


def _pair(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return after[0] - before[0], after[1] - before[1]
