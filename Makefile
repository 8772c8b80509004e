# Everything that people and CI run. Needs make, Python 3.11+ or uv, and a network to the package registries.
# The targets install what is missing: uv, the Python packages (locked), Debian packages (as root), Go.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PATH := $(CURDIR)/.tools/bin:$(PATH)
UV := uv
RUN := PYTHONPATH=hack $(UV) run --frozen --no-sync
PYTEST := $(RUN) pytest
REGISTRY ?= 127.0.0.1:35000/edgemodel

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: sync
sync: ## Install the locked Python packages into .venv
	@hack/bootstrap
	@$(UV) sync --frozen --quiet --all-packages

.PHONY: demo
demo: sync ## Show the main job on a real cluster; every claim is checked
	@$(RUN) python -u -m demo $(ARGS)

.PHONY: test
test: sync verify test-fast test-cluster ## Run every check and every test

.PHONY: verify
verify: sync ## Generated files, layers, lint, types
	$(RUN) python -m edgemodel_operator.generate --check
	$(RUN) python -m protocompile --check
	$(RUN) lint-imports
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

.PHONY: test-fast
test-fast: sync ## Tests that need no cluster
	$(PYTEST) tests/unit tests/scenario images/server/tests

.PHONY: test-cluster
test-cluster: sync ## Tests on a real registry, a real API server and the real cluster
	$(RUN) python -u -m cluster prepare || { [ -z "$$EDGE_REQUIRE" ] && \
	  echo "going on without: tests that need what is missing are skipped, with the reason"; }
	$(PYTEST) tests/cluster_fixture/test_cluster_parts.py tests/cluster_fixture/test_cluster_lifecycle.py
	$(PYTEST) tests/chart tests/cluster_fixture/test_cluster_live.py tests/adapters tests/cluster

.PHONY: bench-serving
bench-serving: sync ## Measure the inference server against its bars and its peers
	@$(RUN) python -u -m bench $(ARGS)

.PHONY: bench-build
bench-build: sync ## Measure how images of models are built, against Dockerfiles; as root
	@$(RUN) python -u -m buildbench $(ARGS)

.PHONY: bench-admission
bench-admission: sync ## Measure how long the admission webhook takes to answer, on one core
	@PYTHONPATH=hack:tests $(UV) run --frozen --no-sync python -u -m admissionbench $(ARGS)

.PHONY: fuzz-serving
fuzz-serving: sync ## Fuzz what the inference server reads from the network: 10^6 inputs
	$(RUN) python -u -m fuzz $(ARGS)

.PHONY: fuzz-trust
fuzz-trust: sync ## Fuzz what decides about trust and strangers write: 10^6 inputs for each reader
	$(RUN) python -u -m fuzz --group trust --count 7000000 $(ARGS)

.PHONY: generate
generate: sync ## Write the generated files
	$(RUN) python -m edgemodel_operator.generate
	$(RUN) python -m protocompile

.PHONY: fmt
fmt: sync ## Format the code
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

.PHONY: images
images: sync ## Build the images for amd64 and arm64, push to REGISTRY; variants: ARGS="--variants NAME"
	$(RUN) python -u -m imagebuild --push $(REGISTRY) $(ARGS)

.PHONY: cluster
cluster: sync ## Start the local cluster and print how to reach it
	@$(RUN) python -u -m cluster up

.PHONY: cluster-down
cluster-down: sync ## Remove every trace of the local cluster
	@$(RUN) python -u -m cluster down
