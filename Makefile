# Two commands do everything: `make demo` solves a sudoku, `make test` passes the tests.
# Both set up .venv with the first Python >= 3.11 they find, and are quick the second time.

VENV := .venv
BIN := $(VENV)/bin
WORK := demo

define PROMPT
Solve this sudoku:
....
...3
1...
.42.
endef
export PROMPT

.PHONY: demo test demo-model picture clean

demo: $(VENV)/.runtime
	@$(BIN)/mlx_diffgemma.generate --model demo "$$PROMPT"

test: $(VENV)/.dev
	$(BIN)/python -m pytest

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
