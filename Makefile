# Python 3.11 or newer and make are all that a machine needs; everything else lands in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv pip --quiet --no-progress
# Where the system has a store of certificates it is used, since it may hold a proxy's; uv brings its own.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS := true
endif
# torch is no part of what serves. Its plain Linux wheel brings gigabytes of CUDA packages, so the
# CPU build is asked for first: pip finds it wherever its own configuration points.
TORCH  ?= 2.13.0

.DEFAULT_GOAL := help
.PHONY: help serve test train-smoke lint format k8s-check monitoring-check load bench fuzz soak reliability sbom audit
.PHONY: docs lock clean

help:  ## list what can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

serve: $(VENV)/.serve  ## build what serving needs, then serve http://127.0.0.1:8000
	@exec $(BIN)/deepfake-detect serve

test: lint  ## build everything, lint, check types and imports, run every test
	$(BIN)/python -m pytest

train-smoke: $(VENV)/.dev  ## prepare, train, export, evaluate and serve a tiny network
	$(BIN)/python -m pytest tests/e2e/test_train_smoke.py

lint: $(VENV)/.dev  ## format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

k8s-check: $(VENV)/.dev  ## build every overlay with every component and check what comes out
	$(BIN)/python -m pytest -rs tests/unit/test_k8s.py tests/unit/test_kustomize.py

monitoring-check: $(VENV)/.dev  ## check metrics, rules, alerts and dashboard
	$(BIN)/python -m pytest -rs tests/unit/test_monitoring.py

load: $(VENV)/.dev  ## load a server in several ways for five minutes; LOAD="steady" for one, LOAD="--host URL" for yours
	$(BIN)/python -m loadtests $(LOAD)

bench: $(VENV)/.dev .venv-peers/.done .venv-dlib/.done  ## measure speed, write docs/benchmarks.md; BENCH="limit --quick" for a part
	$(BIN)/python -m benchmarks $(BENCH)

fuzz: $(VENV)/.dev  ## send a server 20,000 clips that were tampered with; RELIABILITY="--quick" for fewer
	$(BIN)/python -m reliability fuzz $(RELIABILITY)

soak: $(VENV)/.dev  ## load a server with good and bad clients for 20 minutes
	$(BIN)/python -m reliability soak $(RELIABILITY)

reliability: $(VENV)/.dev .venv-schemathesis/.done  ## try all that the service should bear, write docs/reliability.md
	$(BIN)/python -m reliability all $(RELIABILITY)

sbom: .venv-audit/.done  ## write sbom.cdx.json: what is installed to serve, with hashes (CycloneDX)
	.venv-audit/bin/cyclonedx-py requirements requirements/cpu.lock --pyproject pyproject.toml \
	  --output-reproducible -o sbom.cdx.json

audit: .venv-audit/.done  ## ask the advisory database about everything that serves; wants the internet
	.venv-audit/bin/pip-audit --no-deps --disable-pip -r requirements/cpu.lock

docs: $(VENV)/.dev  ## write docs/openapi.json, docs/metrics.md and the generated parts of others
	$(BIN)/python scripts/write_docs.py
	$(BIN)/python scripts/monitoring_docs.py
	$(BIN)/python -m loadtests.scaling

lock: $(VENV)/.uv  ## resolve requirements/*.lock anew
	PATH="$(abspath $(BIN)):$$PATH" sh scripts/lock.sh

clean:  ## remove the environment and all caches
	rm -rf $(VENV) .venv-peers .venv-dlib .venv-audit .venv-schemathesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache sbom.cdx.json

$(VENV)/.uv: requirements/uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "deepfake-detect needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock
	@touch $@

$(VENV)/.serve: $(VENV)/.uv requirements/cpu.lock pyproject.toml
	@echo "installing what serving needs (no torch)"
	@$(UV) install --python $(BIN)/python --no-deps --require-hashes -r requirements/cpu.lock
	@$(UV) install --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements/dev.lock
	@echo "installing the development environment"
	@$(UV) install --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.lock
	@sh scripts/install_torch.sh $(BIN)/python $(TORCH)
	@touch $@

.venv-audit/.done: requirements/audit.lock | $(VENV)/.uv
	@echo "installing what looks at the dependencies"
	@$(PYTHON) -m venv .venv-audit
	@$(UV) install --python .venv-audit/bin/python --no-deps --require-hashes -r $<
	@touch $@

# What the benchmark compares with stays out of the project's own environment.
.venv-peers/.done: benchmarks/peers/requirements.txt | $(VENV)/.uv
	@echo "installing the serving frameworks that are measured beside this one"
	@$(PYTHON) -m venv .venv-peers
	@$(UV) install --python .venv-peers/bin/python --no-deps --require-hashes -r $<
	@touch $@

.venv-schemathesis/.done: reliability/requirements.txt | $(VENV)/.uv
	@echo "installing Schemathesis"
	@$(PYTHON) -m venv .venv-schemathesis
	@$(UV) install --python .venv-schemathesis/bin/python --no-deps --require-hashes -r $<
	@touch $@

.venv-dlib/.done: benchmarks/ancestor.txt | $(VENV)/.uv
	@echo "installing dlib, for the ancestor"
	@$(UV) install --python $(BIN)/python --target .venv-dlib --no-deps --require-hashes -r $< \
	  || echo "dlib can not be installed here, so the ancestor will not be measured"
	@mkdir -p .venv-dlib && touch $@
