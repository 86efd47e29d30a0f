"""The rules of the house: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(("optbench", *path.relative_to(ROOT / folder).with_suffix("").parts)): path
    for folder in ("optbench",)
    for path in sorted((ROOT / folder).rglob("*.py"))
}
TASKS = {f"optbench.tasks.{path.stem}": path for path in sorted((ROOT / "tasks").glob("*.py"))}

DATA = [
    "optbench.component",
    "optbench.cost",
    "optbench.errors",
    "optbench.hardware",
    "optbench.measurement",
    "optbench.parsing",
    "optbench.schedule",
    "optbench.seeding",
    "optbench.trial",
]
# One self-contained file each, or the pure functions that are their reference.
METHODS = sorted(
    name
    for name in MODULES
    if name.startswith("optbench.optim.")
    and name not in ("optbench.optim.build", "optbench.optim.param_groups", "optbench.optim.refused")
    and not name.endswith("__init__")
)
ANALYSIS = [
    "optbench.store",
    "optbench.stats",
    "optbench.tables",
    "optbench.report",
    "optbench.terminal",
    "optbench.page",
    "optbench.publication",
    "optbench.reporting",
    "optbench.loaded",
    *(f"optbench.regress.{name}" for name in ("words", "junit", "summary", "change_points", "history", "page")),
    *(f"optbench.regress.{name}" for name in ("judging", "baselines", "gate", "measuring", "showing", "verbs")),
]
# What tasks may know.
OF_TASKS = {f"optbench.{name}" for name in ("captions", "data", "errors", "imports", "parsing", "seeding", "text")}
HYDRA = {"optbench.cli", "optbench.compose", "optbench.composing", "optbench.loading", "optbench.sweeper"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it, those for type checking aside."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def reachable(module: str) -> set[str]:
    """A module and all of optbench's that it imports, directly or not."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in MODULES and name not in seen:
            seen.add(name)
            waiting += sorted(imports(MODULES[name]))
    return seen


@pytest.mark.parametrize("module", DATA)
def test_data_modules_import_the_standard_library_alone(module: str) -> None:
    foreign = packages(MODULES[module]) - sys.stdlib_module_names - {"optbench"}
    assert not foreign
    assert reachable(module) <= set(DATA)


@pytest.mark.parametrize("module", METHODS)
def test_a_method_imports_torch_and_other_methods_alone(module: str) -> None:
    assert packages(MODULES[module]) - sys.stdlib_module_names <= {"torch", "optbench"}
    own = {name for name in imports(MODULES[module]) if name in MODULES} - {"optbench", "optbench.optim"}
    assert all(name.startswith("optbench.optim.rules") for name in own)
    assert not own or module.startswith("optbench.optim.rules")


@pytest.mark.parametrize("module", ANALYSIS)
def test_analysis_never_imports_torch(module: str) -> None:
    for name in reachable(module):
        assert "torch" not in packages(MODULES[name]), name


@pytest.mark.parametrize("module", sorted(MODULES.keys() - HYDRA))
def test_hydra_is_imported_by_the_command_line_and_the_sweeper_alone(module: str) -> None:
    assert not packages(MODULES[module]) & {"hydra", "omegaconf"}


def test_the_loop_knows_neither_store_nor_tasks_nor_hydra() -> None:
    known = reachable("optbench.train")
    assert not known & {"optbench.store", "optbench.run", "optbench.report", *HYDRA}


@pytest.mark.parametrize("module", sorted({**MODULES, **TASKS}))
def test_nobody_imports_a_task(module: str) -> None:
    imported = imports({**MODULES, **TASKS}[module])
    assert not any(name.startswith(("tasks", "optbench.tasks")) for name in imported)


@pytest.mark.parametrize("module", sorted(TASKS))
def test_a_task_uses_data_and_parts_of_tasks_and_nothing_else_of_optbench(module: str) -> None:
    used = {name for name in imports(TASKS[module]) if name in MODULES} - {"optbench"}
    assert {name for name in used if not name.startswith("optbench.lora")} <= OF_TASKS


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("optbench.lora.")))
def test_a_part_of_lora_tasks_knows_what_they_know(module: str) -> None:
    used = {name for name in imports(MODULES[module]) if name in MODULES} - {"optbench"}
    assert {name for name in used if not name.startswith("optbench.lora")} <= OF_TASKS | {"optbench.hub"}


@pytest.mark.parametrize("module", sorted({**MODULES, **TASKS}))
def test_a_module_is_one_noun_and_stays_short(module: str) -> None:
    assert len({**MODULES, **TASKS}[module].read_text().splitlines()) <= 350


@pytest.mark.parametrize("module", sorted({**MODULES, **TASKS}))
def test_a_function_takes_at_most_three_positional_parameters(module: str) -> None:
    for node in ast.walk(ast.parse({**MODULES, **TASKS}[module].read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("__"):
            positional = [argument.arg for argument in node.args.posonlyargs + node.args.args if argument.arg != "self"]
            assert len(positional) <= 3, node.name


def test_importing_optbench_imports_nothing_heavy() -> None:
    script = "import sys, optbench, optbench.cli; print(sorted(sys.modules))"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ("torch", "pandas", "numpy", "hydra", "wandb", "rich") if f"'{name}'" in names]
