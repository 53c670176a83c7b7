# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
# Both set up .venv with the first Python >= 3.11 they find, and are quick the second time.

VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PROMPT ?= Why is the sky blue?

.PHONY: demo test clean
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	@if [ ! -d $(DEMO)/model-4bit ]; then \
	  rm -rf $(DEMO)/random && \
	  $(BIN)/python examples/demo_checkpoint.py $(DEMO)/random && \
	  $(BIN)/mlx_diffgemma.convert $(DEMO)/random $(DEMO)/model-4bit --bits 4; \
	fi
	@echo "The weights are random, so the text is noise: what you see is the machinery." >&2
	@$(BIN)/mlx_diffgemma.generate --model $(DEMO)/model-4bit --max-tokens 128 "$(PROMPT)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest

$(VENV)/.runtime: pyproject.toml constraints.txt
	@.ci/venv $(VENV) .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@.ci/venv $(VENV) ".[dev]"
	@touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) $(DEMO)
