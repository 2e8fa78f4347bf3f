# `make demo` and `make quick` are all a newcomer needs; each installs what it needs into .venv first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Pinned, but installed first and by itself: its CPU and CUDA builds are different files under one version.
TORCH ?= torch==2.13.0
# Another index to take it from, such as that of the builds for CPUs.
TORCH_INDEX_URL ?=
# Of the chaos campaigns: make chaos SEEDS="1 2 3".
SEEDS ?= 1 2 3
# Of `make bench`; the first line writes its sections of docs/BENCHMARKS.md.
WRITTEN := startup inference keyterms pipeline decode scale
BENCHES ?= $(WRITTEN) accuracy memory throughput deepgram_faults
export CONTAINER_ENGINE ?= docker
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo quick test docs client lint lint-code lint-deploy format bench smoke chaos schemas lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## everything into .venv, from the lock file

$(VENV)/.installed: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@echo 'Installing into $(VENV), this once: 257 packages; 0.8 GB to download and 3 GB on disk with a CPU build of torch.'
	@echo 'Where pip takes the much larger CUDA build and there is no GPU, name another: TORCH=, TORCH_INDEX_URL= (docs/develop.md).'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(if $(TORCH_INDEX_URL),--index-url '$(TORCH_INDEX_URL)') '$(TORCH)'
	$(PIP) install --no-deps --require-hashes -r requirements-dev.txt
	$(PIP) install -q --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## three jobs through the whole worker on this machine, with a tiny model
	$(BIN)/klipstream-worker demo

# Three processes on two cores, because tests wait for threads and processes of their own.
quick: lint-code ## lint, types, import rules and unit tests but campaigns: a minute and a half
	$(BIN)/pytest -q -n 3 tests/unit -m 'not campaign'

lint: lint-code lint-deploy ## style, types, import rules; Dockerfile, shell, YAML

lint-code: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lint-deploy: install
	$(BIN)/hadolint Dockerfile.gpu
	$(BIN)/shellcheck .ci/run deploy/*.sh deploy/*/*.sh deploy/image/bin/with-cuda-driver
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.cloudbuild cloudbuild.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	for environment in staging production; do \
	  deploy/deploy.sh $$environment --render --image any@sha256:$$(printf '%064d' 0) \
	    | $(BIN)/check-jsonschema --default-filetype yaml --schemafile deploy/schemas/worker-pool.schema.json - || exit 1; \
	done

# Three stages, each of which waits for processes more than it computes, so three pytest processes share two cores. Coverage
# is measured in the first alone: what runs in processes would need a tracer of its own. Expensive servers and models are
# started once a file, or once a process. The third stage measures time and memory, and has nothing beside it.
test: install ## lint, documents, then every test, with branch coverage: a quarter of an hour
	$(MAKE) --no-print-directory -j 2 --output-sync lint docs
	$(BIN)/pytest -n 3 --dist worksteal tests/deploy tests/contract tests/media tests/unit --cov
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not alone' $(PROCESSES)
	$(BIN)/pytest -m alone $(PROCESSES)

PROCESSES := tests/chaos tests/integration tests/browser tests/gpu

CLIENT := .venv-client/bin/python -m
client: ## the client's tests on the base install alone: make client PYTHON=python3.10
	$(PYTHON) -m venv .venv-client
	$(CLIENT) pip install -q --editable . hypothesis jsonschema pytest pytest-asyncio pytest-timeout
	$(CLIENT) pytest --noconftest -W 'ignore:You are using a non-supported Python:FutureWarning' tests/unit/client tests/unit/schemas

docs: install ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: install ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## every figure of README and docs/BENCHMARKS.md measured anew, over an hour; BENCHES="decode memory" for some
	for bench in $(BENCHES); do \
	  case " $(WRITTEN) " in *" $$bench "*) options="--write docs/BENCHMARKS.md";; *) options="";; esac; \
	  $(BIN)/python -m bench.$$bench $$options || failed="$$failed $$bench"; \
	done; test -z "$$failed" || { echo "promises not kept:$$failed"; exit 1; }

chaos: install ## kill, stop, cut off and starve workers for an hour, and check that nothing is lost or done twice
	$(BIN)/python -m tests.chaos $(SEEDS:%=--seed %)
	$(BIN)/python -m tests.chaos.faults
	$(BIN)/python -m tests.chaos.shutdown
	$(BIN)/python -m tests.chaos.deliveries
	$(BIN)/python -m tests.chaos.replay

smoke: ## the image with the tiny model, built and proved: needs docker, or CONTAINER_ENGINE=podman
	$(CONTAINER_ENGINE) build -f Dockerfile.gpu --build-arg MODEL=tiny --build-arg PARAKEET_DEVICE=cpu -t klipstream-worker:smoke .
	$(CONTAINER_ENGINE) build -f Dockerfile.gpu --build-arg MODEL=tiny --build-arg PARAKEET_DEVICE=cpu --target test \
	  -t klipstream-worker:smoke-tools .
	deploy/smoke.sh klipstream-worker:smoke klipstream-worker:smoke-tools

schemas: install ## write schemas/json again from the models
	$(BIN)/python -m schemas.generate

# Torch is in none of them; pyproject.toml says what it needs besides CUDA. The last two are the image's, for its Python.
LOCK = $(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-package torch --no-header \
  -c $(VENV)/constraint.txt pyproject.toml --extra worker --extra parakeet
lock: install ## resolve the dependencies anew: for Python 3.11 to 3.13, and for the image
	echo '$(TORCH)' > $(VENV)/constraint.txt
	$(LOCK) --universal --extra nemo --extra embedded --extra dev --upgrade -o requirements-dev.txt
	$(LOCK) -c requirements-dev.txt -o requirements-worker.txt
	$(LOCK) -c requirements-dev.txt --extra nemo -o deploy/requirements-nemo.txt

clean: ## remove what make made
	rm -rf $(VENV) demo-output site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
