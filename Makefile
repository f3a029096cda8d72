# Two commands: `make demo` shows the main job, `make test` checks it. Both set up a virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/demo
EXPERIMENTS ?= $(patsubst %/experiment.yaml,%,$(wildcard experiments/*/experiment.yaml))

.PHONY: demo test check native native-test format format-check lint types contracts slow results readme clean

$(READY): pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit("dopant needs Python 3.11 or later, $(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "torch>=2.6"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(READY)
	$(BIN)/dopant compare --corpus python-docs --model tiny --set tokenizer.minimum=20 \
		--target 25x --count parameters --out $(DEMO) --force

# The native library again, where its sources are newer; without a C++ compiler this says so and torch serves.
native: $(READY)
	$(BIN)/python build_native.py

native-test: native
	$(BIN)/python tests/native/run_kernel_tests.py

test: native
	$(BIN)/python -m pytest -n auto

slow: native
	$(BIN)/python -m pytest -m "slow and not gpu"

check: format-check lint types contracts native-test test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

# Every record that is missing or out of date, then the tables: days on a processor, hours on a GPU. For one experiment,
# on a text elsewhere: make results EXPERIMENTS=experiments/ptb-small RESULTS="--corpus my-texts/ptb".
results: native
	for experiment in $(EXPERIMENTS); do $(BIN)/dopant results $$experiment $(RESULTS) || exit; done
	$(BIN)/python docs/readme.py

readme: $(READY)
	$(BIN)/python docs/readme.py

clean:
	rm -rf $(VENV) build src/dopant/native/*.so src/dopant/native/*.dylib src/dopant/native/built.txt $(DEMO) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
