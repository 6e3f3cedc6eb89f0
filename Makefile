# Two commands for a new user: `make demo` and `make test`. Each does all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := build/demo
DEMO_PROMPT ?= Once upon a time
DEMO_TOKENS ?= 48

.PHONY: demo test test-full lint bench formal mutation clean system

demo: $(VENV)/.demo
	$(BIN)/hwgen explore examples/model --side 4 --node 28 --goal 0.8,0.1,0.1 --evaluations 2048 -o $(RUN)-explore --force
	$(BIN)/hwgen generate examples/model $(RUN)-explore/design.yaml -o $(RUN) --force
	$(BIN)/hwgen sim $(RUN) --sim verilator --prompt "$(DEMO_PROMPT)" --max-tokens $(DEMO_TOKENS)
	$(BIN)/hwgen sim $(RUN) --sim icarus --prompt-ids 1 --max-tokens 1
	$(BIN)/hwgen synth $(RUN)
	@echo "Open $(RUN)-explore/report.html and $(RUN)/report.html in a browser."

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-full: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadgroup --full

lint: $(VENV)/.test
	$(BIN)/ruff check .

bench: $(VENV)/.test
	$(BIN)/python -m bench

# Laws of the network's hardware: proofs, then which mutants of the router its bench catches.
formal: $(VENV)/.formal
	$(BIN)/python -m verify

mutation: $(VENV)/.sim
	$(BIN)/python -m verify.mutants

# What pip cannot bring: Icarus, a C++ compiler, perl. Asked for only where missing.
system:
	@sh tools/system-packages.sh

$(VENV)/bin/python: | system
	$(PYTHON) -m venv $(VENV)

$(VENV)/.sim: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[sim]"
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[sim,explore]"
	touch $@ $(VENV)/.sim

$(VENV)/.formal: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[formal]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@ $(VENV)/.sim $(VENV)/.demo $(VENV)/.formal

clean:
	rm -rf build sim_build
