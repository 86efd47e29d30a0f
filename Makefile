# The commands of this project; `make` lists them.
#
# To make, `key=value` on its command line is a variable of its own. `sweep`, `run`, `report` and `list` want those
# words for Hydra, whatever the key, so no name in this file may be one that a config could use: what a user may set
# is UPPER CASE, the rest starts with `_`.

# Asked only when .venv is made: `make distclean` before choosing another.
PYTHON ?= python3
# Makes .venv where it is installed; `UV=` does it with venv and pip all the same.
UV ?= $(shell command -v uv 2>/dev/null)
FLAGS ?=
PYTEST_FLAGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help sweep run plan cost fit status parity reproduce claims regress nightly baseline report list test verify verify-gpu bench next lint typecheck docs format wheel clean distclean

help: ## Show this list
	@printf '%s\n' 'Usage: make <target> [key=value ...]' '' \
	  '  make run task=mnist_mlp optimizer=adamw' \
	  "  make sweep task=mnist_mlp optimizer=lion,adamw 'seed=range(5)'" '' \
	  'Every key=value (also +key=value and ~key) goes to Hydra as it is. The shell needs single quotes' \
	  "around brackets, parentheses and blanks: 'optimizer.betas=[0.9,0.99]'." \
	  "Options go through FLAGS: make run task=mnist_mlp FLAGS='--cfg job'." ''
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- Hydra's words ------------------------------------------------------------------------------------------------

_SPACE := $() $()
_TAB := $()	$()
_COMMA := ,
define _NEWLINE


endef

# MAKEOVERRIDES holds the words newest first, `$` doubled, blanks and backslashes behind a backslash. Here they become
# words in single quotes: a quote or backslash of the value steps outside the quotes, a blank closes one word and opens
# the next, unless a backslash stands before it.
_UNQUOTED = $(subst $$$$,$$,$(MAKEOVERRIDES))
_QUOTED = '$(subst \' ', ,$(subst $(_SPACE),' ',$(subst \$(_TAB),$(_TAB),$(subst \\,'\\',$(subst ','"'"',$(_UNQUOTED))))))'
# A recipe's line ends at a line break, even at one within quotes.
_WORDS = $(if $(findstring $(_NEWLINE),$(MAKEOVERRIDES)),$(error An override cannot hold a line break),$(_QUOTED))

# Hydra's `~key` has no `=`, so make takes it for a goal.
_DELETIONS = $(foreach _W,$(filter ~%,$(MAKECMDGOALS)),'$(subst ','"'"',$(_W))')
~%: ; @:

sweep: ## Run every combination of the given values: make sweep optimizer=lion,adamw task=mnist_mlp
run: ## Run one trial: make run task=mnist_mlp optimizer=adamw
plan: ## Show what a sweep would run, and what is known of its time and memory: make plan optimizer=lion,adamw
cost: ## Measure what a step takes of memory and time: make cost optimizer=lion,adamw
fit: ## Predict without a GPU what fits: make fit optimizer=lion,adamw hardware=rtx4090
status: ## Show which trials are missing, running, failed or stale (results=FOLDER, FLAGS=--all)
parity: ## Compare an optimizer with its paper's rule, or with another: make parity optimizer=adafactor
reproduce: ## Hold a paper's table against ours: make reproduce paper=deepobs_quadratic (FLAGS=--quick)
claims: ## Show what is said of optimizers, and what was measured of it (FLAGS=--markdown)
regress: ## Hold losses, memory and step times against a baseline: make regress suite=quick FLAGS='--against HEAD~1'
nightly: ## The same with every optimizer, against the accepted baseline of this machine
baseline: ## Make the last run the baseline of this machine: make baseline suite=nightly FLAGS="--reason 'torch 2.14'"
report: ## Print the tables of what is stored, and write a page with pictures (results=FOLDER, FLAGS=--all)
list: ## Show what there is to choose from (FLAGS=optimizers)

_ASKED := sweep run plan cost fit status parity reproduce claims regress nightly baseline report list
_VERB = $@
nightly: _VERB = regress suite=nightly
baseline: _VERB = baseline accept
# Suites have optimizers of the optional packages.
regress nightly: .venv/.dev

# Prepending each word brings them back into the order in which they were typed.
$(_ASKED): .venv/.core
	@set --; for word in $(_WORDS); do case $$word in \
	  '' | PYTHON=* | UV=* | FLAGS=* | PYTEST_FLAGS=*) ;; \
	  *) set -- "$$word" "$$@" ;; \
	esac; done; exec env -u MAKELEVEL .venv/bin/optbench $(_VERB) $(FLAGS) "$$@" $(_DELETIONS)

# Make also puts such words into the environment, and evaluates them first: `x=$(shell ...)` would run.
ifneq ($(filter $(_ASKED),$(MAKECMDGOALS)),)
unexport $(foreach _W,$(subst \$(_TAB),,$(subst \$(_SPACE),,$(subst \\,,$(MAKEOVERRIDES)))),$(firstword $(subst =, ,$(_W))))
endif
unexport MAKEFLAGS MFLAGS MAKEOVERRIDES MAKE_TERMOUT MAKE_TERMERR

# --- Checks -------------------------------------------------------------------------------------------------------

_PYTEST := env -u MAKELEVEL .venv/bin/pytest
# One process for each core. The tests of a file stay in one, since they share what is slow to make; in the order of their
# names, since slow files with few tests would come last, and leave cores idle.
_PARALLEL := --numprocesses=auto --dist=loadfile --no-loadscope-reorder -p no:benchmark

test: .venv/.dev ## Run the fast tests (PYTEST_FLAGS='-k sweep')
	$(_PYTEST) $(_PARALLEL) --ignore=tests/benchmarks --ignore=tests/gpu -m 'not verify' $(PYTEST_FLAGS)

verify: .venv/.dev ## Run all tests, the long comparisons with published tables too
	$(_PYTEST) $(_PARALLEL) --ignore=tests/benchmarks --ignore=tests/gpu $(PYTEST_FLAGS)

verify-gpu: .venv/.dev ## Compare predicted with allocated memory on a GPU; skips where there is none
	$(_PYTEST) tests/gpu -p no:benchmark -rs -s $(PYTEST_FLAGS)

bench: .venv/.dev ## Time the package's own parts, then each optimizer's step against the accepted baseline
	$(_PYTEST) tests/benchmarks --ignore=tests/benchmarks/test_step.py $(PYTEST_FLAGS)
	env -u MAKELEVEL .venv/bin/optbench regress suite=bench $(FLAGS)

# PYTHONPATH goes to the processes that tests start, too, and stands before what .venv has.
_NEXT := $(CURDIR)/build/hydra-next
_NEXT_TESTS := $(patsubst %,tests/test_%.py,compose conf hydra_next)

next: .venv/.dev build/hydra-next/.pins ## Run the tests of the configs on Hydra's next version (constraints-next.txt)
	PYTHONPATH='$(_NEXT)' OPTBENCH_TESTED_PINS=constraints-next.txt \
	  $(_PYTEST) $(_PARALLEL) $(_NEXT_TESTS) $(PYTEST_FLAGS)

lint: .venv/.dev ## Check style and common mistakes
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

typecheck: .venv/.dev ## Check the types
	.venv/bin/mypy --strict optbench tasks

docs: .venv/.core ## Make the pages of docs/ that come from the config files
	.venv/bin/optbench list optimizers --markdown > docs/optimizers.md
	.venv/bin/optbench list papers --markdown > docs/papers.md

format: .venv/.dev ## Rewrite the files in the project's style
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# setuptools would pack whatever an earlier build left behind.
wheel: .venv/.core ## Build the package into dist/
	rm -rf build
	.venv/bin/python -m pip wheel --no-deps --wheel-dir dist .

clean: ## Remove caches and built files; results and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . \( -path ./.venv -o -path ./results \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove .venv as well
	rm -rf .venv

# --- Set-up -------------------------------------------------------------------------------------------------------

# Prints the interpreter to build on, or the version that is too old. The base interpreter, since $(PYTHON) may be the
# one inside the .venv that is about to go.
_PROBE := import sys; old = sys.version_info < (3, 11); \
  print("Python %d.%d.%d" % sys.version_info[:3] if old else sys._base_executable); sys.exit(old)

_CREATE = $(if $(UV),$(UV) venv --quiet --seed --python "$$python" .venv,"$$python" -m venv .venv)
_PIP = $(if $(UV),$(UV) pip install --quiet --python .venv/bin/python,.venv/bin/python -m pip install --quiet \
  --disable-pip-version-check)
_INSTALL = $(_PIP) --constraint constraints.txt
_OR_ADVISE = || { echo 'The set-up failed, for the reason above. It needs the network or a local index' \
  '($(if $(UV),UV_DEFAULT_INDEX,PIP_INDEX_URL)); after that, the same command starts it again.' >&2; exit 1; }

# The stamp is a copy of the pins, so that a switch of branches and back costs nothing. torch comes before all else:
# alone, it is taken as a CPU build where the index has one, and nothing later draws in another with CUDA.
.venv/.pins: constraints.txt
	@if cmp -s constraints.txt $@; then exec touch $@; fi; \
	python=$$($(PYTHON) -c '$(_PROBE)' 2>/dev/null) || { \
	  echo "optbench needs Python 3.11 or newer; $(PYTHON) is $${python:-not to be found}." \
	    "Name another: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }; \
	echo "Setting up .venv with $$python. Once, and again when constraints.txt changes;" \
	  "torch is large, so this takes minutes." >&2; \
	rm -rf .venv && $(_CREATE) && $(_INSTALL) $$(grep '^torch==' constraints.txt) $(_OR_ADVISE); \
	cp constraints.txt $@

# With the development tools where a goal needs them: one installation takes half the time of two.
_EXTRAS := [dev,lora,ray,slurm,tensorboard,zoo]
_WITH_TOOLS := $(filter regress nightly test verify verify-gpu bench next lint typecheck format,$(MAKECMDGOALS))

.venv/.core: .venv/.pins pyproject.toml
	@echo 'Installing optbench and what it depends on$(if $(_WITH_TOOLS),$(_COMMA) optional dependencies and tools too).' >&2
	@$(_INSTALL) --editable '.$(if $(_WITH_TOOLS),$(_EXTRAS))' $(_OR_ADVISE)
	@touch $@ $(if $(_WITH_TOOLS),.venv/.dev)

.venv/.dev: .venv/.core
	@if [ -e $@ ] && ! [ .venv/.core -nt $@ ]; then exit 0; fi; \
	echo 'Installing the development tools and the optional dependencies.' >&2; \
	$(_INSTALL) --editable '.$(_EXTRAS)' $(_OR_ADVISE); touch $@

# A folder beside .venv, which it leaves alone.
build/hydra-next/.pins: constraints-next.txt | .venv/.dev
	@echo "Getting Hydra's next version." >&2
	@rm -rf $(@D) && mkdir -p $(@D) && $(_PIP) --no-deps --target $(@D) --requirement constraints-next.txt $(_OR_ADVISE)
	@cp constraints-next.txt $@
