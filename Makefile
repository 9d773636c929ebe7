# Each target does its own set-up: `make demo` and `make test` work on a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo evidence test test-slow check docs bench gpu-check image worker-image sbom server deploy worker clean

PYTHON ?= python3
# Where PyTorch comes from: a CPU build on Linux unless GPU=1. TORCH_INDEX= (empty) asks the usual index only.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
GPU ?=
POOL ?= process
FORCE ?=
IMAGE ?=
# What the worker's image starts from, by digest as infra/digests.sh prints it (empty: debian:bookworm-slim, as it is here).
DEBIAN_IMAGE ?=
# Further arguments of `docker build`.
BUILD ?=
COMMIT = $(shell git describe --always --dirty --abbrev=64 --exclude='*')
ARGS ?=
# Runs of one worker at once.
LIMIT ?= 4
# Processes that share the tests, file by file.
WORKERS ?= 2
BIN := .venv/bin
LOCAL = PREFECT_API_URL=$${PREFECT_API_URL:-http://127.0.0.1:4200/api}
# What is installed is known by what these files hold: a fresh clone's are newer, and the same.
WANTED := $(shell cat pyproject.toml constraints.txt infra/dev.lock infra/setup.sh | cksum | tr ' ' -)
READY := .venv/ready-$(WANTED)$(if $(GPU),-gpu)
export DO_NOT_TRACK := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120
# On SQLite a task asks for its slots in the moment in which its state is written, is refused, and asks again 2 s later. So
# states are written once a second, together.
export PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE := 50
export PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL := 1

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## .venv with everything in it (GPU=1: the CUDA build of PyTorch); a no-op when nothing changed

$(READY):
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" GPU="$(GPU)" infra/setup.sh
	@find -H .venv -maxdepth 1 -name 'ready*' ! -name 'ready-$(WANTED)*' -delete
	@touch $@

demo: $(READY) ## the whole loop on tiny models, in about ten minutes; the report is runs/demo/report.html
	@$(BIN)/selftrain run demo
	@if [ "$$(uname)" = Darwin ] || [ -n "$${DISPLAY:-}$${WAYLAND_DISPLAY:-}" ]; then \
	  $(BIN)/python -m webbrowser -t "file://$(CURDIR)/runs/demo/report.html"; fi

evidence: $(READY) ## what each part of the method buys: configs/studies/evidence.yaml, in hours (it prints how many, and resumes)
	@$(BIN)/selftrain study evidence --dry-run
	@$(BIN)/selftrain study evidence
	@$(BIN)/selftrain study evidence --split validation > /dev/null

test: $(READY) ## the fast tests: every part at least once, in some minutes
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" tests

test-slow: $(READY) ## all others: Docker, S3, PostgreSQL, a browser, machines, kills (those that need what this machine lacks say so)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m slow tests

check: $(READY) ## formatter, linter, type checker, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py -k "not cached_run"

docs: $(READY) ## the generated pages (docs/configuration.md, lists in docs/development.md) and the site, in build/site
	@$(BIN)/python -m infra.docs
	@$(BIN)/python -c "import mkdocs, material" 2>/dev/null || { echo "the pages are written, the site is not: .venv has no mkdocs-material;" \
	  "run \`$(BIN)/pip install mkdocs-material\` where the package index can be reached"; exit 1; }
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

bench: $(READY) ## speed, measured side by side on this machine
	@$(BIN)/python -m tests.bench

gpu-check: $(READY) ## every stage on this machine's GPUs, beside a CPU, the plan and the card's peak, in ten minutes (GPU=1: with the CUDA build of PyTorch; ARGS="--out FILE ...")
	@$(BIN)/python -m infra.gpu_check $(ARGS)

image: $(READY) ## the Docker image in which the sandbox runs programs
	@$(BIN)/python -m sandbox build

worker-image: ## the Docker image of the worker, with this commit in it (GPU=1: selftrain-worker:gpu; DEBIAN_IMAGE=debian:bookworm-slim@sha256:...: from that image)
	@docker build --file infra/Dockerfile --tag selftrain-worker$(if $(GPU),:gpu) --build-arg "GPU=$(GPU)" \
	  --build-arg "TORCH_INDEX=$(TORCH_INDEX)" --build-arg "COMMIT=$(COMMIT)" \
	  $(if $(DEBIAN_IMAGE),--build-arg "BASE=$(DEBIAN_IMAGE)") $(BUILD) .

sbom: $(if $(IMAGE),,$(READY)) ## what is installed in .venv, as CycloneDX in build/sbom/ (IMAGE=selftrain-worker: in that Docker image)
	@$(if $(IMAGE),$(PYTHON),$(BIN)/python) infra/sbom.py $(IMAGE)

server: $(READY) ## Prefect server and UI on http://127.0.0.1:4200
	@$(BIN)/prefect server start

deploy: $(READY) ## work pool and deployments on the running server (POOL=process, docker or kubernetes; FORCE=1 overwrites what was changed there)
	@$(LOCAL) $(BIN)/python infra/deploy.py $(POOL) $(if $(filter-out 0,$(FORCE)),--force)

worker: $(READY) ## a worker for the work pool (LIMIT=4: its runs at once; SELFTRAIN_METRICS=PORT: figures for Prometheus on that port of 127.0.0.1)
	@[[ "$(LIMIT)" =~ ^[1-9][0-9]*$$ ]] || { echo "LIMIT=$(LIMIT): expected a number of runs at once, at least 1"; exit 2; }
	@$(LOCAL) $(BIN)/python -m flows.worker --limit $(LIMIT)

clean: ## delete runs, their store and caches of tools (not .venv)
	rm -rf runs dist build .pytest_cache .mypy_cache .ruff_cache
