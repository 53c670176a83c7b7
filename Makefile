# `make demo` solves a sudoku, `make check` judges a change in a minute, `make test` runs the tests,
# `make slow-test` the one that takes minutes. Each sets up .venv with the first Python >= 3.11 it finds,
# and is quick the second time.

VENV := .venv
BIN := $(VENV)/bin
WORK := demo
# All cores. A file's tests stay in one process, and files start in the order of their folders: the slow ones first.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

define PROMPT
Solve this sudoku:
....
...3
1...
.42.
endef
export PROMPT

.PHONY: demo check style contracts types unit test slow-test demo-model picture clean

demo: $(VENV)/.runtime
	@$(BIN)/mlx_diffgemma.generate --model demo "$$PROMPT"

# Two at a time, the longest first.
check: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs 2 types unit contracts style

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

contracts: $(VENV)/.dev
	$(BIN)/lint-imports
	$(BIN)/python .ci/structure.py

types: $(VENV)/.dev
	$(BIN)/basedpyright

unit: $(VENV)/.dev
	$(PYTEST) tests/unit -m "not slow"

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

slow-test: $(VENV)/.dev
	$(PYTEST) -m slow

$(VENV)/.runtime: pyproject.toml constraints.txt
	@.ci/venv $(VENV) ".[plot]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@.ci/venv $(VENV) ".[dev]"
	@touch $@ $(VENV)/.runtime

# Trains the model in the package anew: hours on two cores. It goes on where it was stopped.
demo-model: $(VENV)/.dev
	$(BIN)/python examples/demo_model/make.py $(WORK) mlx_diffgemma/demo

picture: $(VENV)/.runtime
	$(BIN)/python examples/picture.py "$$PROMPT" --model demo --output examples/demo.svg

clean:
	rm -rf $(VENV) $(WORK)
