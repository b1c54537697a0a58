# Every command of the project; each sets up what it needs in .venv first.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
# `cuda` where there is an NVIDIA GPU, else `cpu`.
LOCK ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
bin := .venv/bin
compile := --quiet --generate-hashes --universal --no-annotate --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help run serve release rollback test lint check bench schema lock clean
.SILENT:

help: ## Show what there is to type
	awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/ready ## Data, training, evaluation, gates and report; again costs only what changed
	$(bin)/python -m scripts.run

serve: .venv/ready ## Every model behind one OpenAI-compatible address, as serving.yaml says
	test -f models/candidate/model.json -a -f models/base/model.json || $(bin)/python -m scripts.reproduce train
	$(bin)/python -m scripts.serve

release: .venv/ready ## The candidate to its users on this machine, with real requests (FAULT=latency|errors|quality|crash)
	$(bin)/python -m scripts.ship --fault "$${FAULT:-none}"

rollback: .venv/ready ## Take back what is on its way, or the last release (WHY="the reason" [TAG=v1.2.0])
	test -n "$$WHY" || { echo 'error: the reason is missing; say it: make rollback WHY="users complain"'; exit 2; }
	$(bin)/python -m scripts.rollback --target local --remote none --tag="$${TAG:-}" --why="$$WHY"

test: .venv/ready lint ## Every test and lint
	$(bin)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder # the workflows first, they take longest

lint: .venv/ready ## Style, types, import directions and the declared files
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports --no-logo 2>/dev/null || $(bin)/lint-imports
	$(bin)/python -m scripts.check

check: .venv/ready ## Validate every declared file at once
	$(bin)/python -m scripts.check

bench: .venv/ready ## Measure speed beside its peers (takes a while)
	$(bin)/python -m benchmarks.gate
	$(bin)/python -m benchmarks.statistics
	$(bin)/python -m benchmarks.evaluate
	$(bin)/python -m benchmarks.pull_request
	$(bin)/python -m benchmarks.canary
	$(bin)/python -m benchmarks.gateway
	$(bin)/python -m benchmarks.ledger

schema: .venv/ready ## Write schemas/ for editors from the models in code
	$(bin)/python -m scripts.schema

lock: .venv/ready ## Resolve the dependencies anew
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(bin)/uv pip compile $(compile) --group dev pyproject.toml -o locks/cpu.txt
	$(bin)/uv pip compile $(compile) --group dev --group cuda pyproject.toml -o locks/cuda.txt
	$(bin)/uv pip compile $(compile) --group embedding --no-deps --constraints locks/cpu.txt -o locks/embedding.txt
	$(bin)/uv pip compile $(compile) --group judging --constraints locks/cpu.txt -o locks/judging.txt
	cat locks/embedding.txt >> locks/judging.txt
	$(bin)/uv pip compile $(compile) --group gateway --constraints locks/cpu.txt -o locks/gateway.txt

clean: ## Remove what was computed, and .gatehouse: the gateway's key and ledger, counts of releases
	rm -rf evaluation models data/prepared data/validation checkpoints .gatehouse

# pip installs uv, uv installs the rest, both by hash. Where no CPU build of torch is offered, the CUDA lock serves.
.venv/ready: locks/uv.txt locks/cpu.txt locks/cuda.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed, found $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	echo "Setting up .venv ($(LOCK)) ..."
	test -x $(bin)/python || $(PYTHON) -m venv .venv
	$(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt
	install() { UV_FIND_LINKS="$$PIP_FIND_LINKS" UV_INDEX="$$PIP_EXTRA_INDEX_URL" VIRTUAL_ENV=.venv \
	  $(bin)/uv pip install --quiet --require-hashes --link-mode copy --compile-bytecode -r "locks/$$1.txt"; }; \
	install $(LOCK) || { test $(LOCK) = cpu && echo "No CPU build of torch is offered here: taking the CUDA build, which runs on CPUs as well." && install cuda; }
	touch $@
