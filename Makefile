# Every target works on a fresh clone: it first makes .venv from requirements.lock, once.

.DEFAULT_GOAL := $(if $(value recipe),run,help)
.PHONY: help run plan eval export bench oracles bench-training gpu-check list doctor clean test check setup lock clean-env

# What a user types after `name=` reaches the commands as it was typed: it travels in the environment
# and is quoted where it is used, so that neither make nor the shell expands anything in it.
unexport recipe set model battery format to
export RECIPE := $(value recipe)
export SET := $(value set)
export MODEL := $(value model)
export BATTERY := $(value battery)
export FORMAT := $(value format)
export TO := $(value to)

workbench := .venv/bin/workbench

help:
	@echo 'make recipe=NAME [set="key=value ..."]        run recipes/NAME.yaml; goes on where it stopped'
	@echo 'make plan recipe=NAME [set="key=value ..."]   forecast of memory, disk, time and tokens; runs nothing'
	@echo 'make eval model=FOLDER battery=NAME           evaluate a model under evals/batteries/NAME.yaml'
	@echo 'make export model=FOLDER format=F to=FOLDER   write a model in a format that other tools load'
	@echo 'make bench                                    speed of the low-bit kernels, beside bf16 and others; writes a result'
	@echo 'make bench-training                           training speed, side by side with others'
	@echo 'make gpu-check                                train LLaMA-3-8B shapes on one GPU, beside others; writes a result'
	@echo 'make oracles                                  our quantizers against other packages; wants WORKBENCH_DATA'
	@echo 'make list                                     recipes and batteries, a line each'
	@echo 'make doctor                                   look over Python, compiler, packages and devices'
	@echo 'make clean                                    what runs take on disk, and what no run links to'
	@echo 'make test                                     the test suite (CPU, offline)'
	@echo 'make check                                    lint, format, types, import layers'
	@echo 'make lock                                     renew requirements.lock from pyproject.toml'
	@echo 'make clean-env                                remove .venv; the next make makes it again'

run: setup
	@$(workbench) run --set="$$SET" -- "$$RECIPE"

plan: setup
	@$(workbench) plan --set="$$SET" -- "$$RECIPE"

eval: setup
	@$(workbench) eval -- "$$MODEL" "$$BATTERY"

export: setup
	@$(workbench) export -- "$$MODEL" "$$FORMAT" "$$TO"

bench: setup
	@$(workbench) bench

bench-training: setup
	@.venv/bin/python tests/benchmarks/training_speed.py
	@.venv/bin/python tests/benchmarks/control_llm_speed.py

# The packages to compare with lie beside .venv, so that a user never needs them.
oracles: setup
	@test -e .oracles/complete || { rm -rf .oracles && .venv/bin/pip install --quiet --target .oracles --no-deps \
	  --no-build-isolation --requirement tests/oracles/requirements.txt && touch .oracles/complete; }
	@PYTHONPATH=.oracles GPTQMODEL_CPU_WORKERS=2 .venv/bin/python tests/oracles/quantizers.py --out tests/oracles/results

gpu-check: setup
	@.venv/bin/python tests/benchmarks/gpu_check.py

list doctor clean: setup
	@$(workbench) $@

test: setup
	@.venv/bin/pytest -n 2 --dist worksteal

check: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

# Sets $$python to a Python that the lock serves; PYTHON=... names another one.
find_python = for python in "$${PYTHON:-python3}" python3.13 python3.12 python3.11 none; do \
	  test "$$python" = none || "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    2>/dev/null && break; \
	done; \
	if test "$$python" = none; then \
	  echo 'set-up: needs Python 3.11, 3.12 or 3.13, found' "$$(python3 --version 2>&1 || true)" >&2; \
	  echo '  apt install python3 python3-venv (Debian 12, Ubuntu 24.04 or newer), or see python.org;' >&2; \
	  echo '  a Python that is not on PATH: make PYTHON=/path/to/python3.11 ...' >&2; \
	  exit 2; \
	fi

setup:
	@$(find_python); "$$python" -m workbench.environment.make

lock:
	@$(find_python); "$$python" -m workbench.environment.lock

clean-env:
	rm -rf .venv .oracles
