# Needs only Python >= 3.11 (with venv), Node >= 20 and make.
#   make serve   set everything up and run the service on an embedded Postgres (foreground)
#   make test    set everything up and run every test
#   make lint    style, types, import directions
#   make bench   measure this store beside others, and write the README's tables (`make bench-scale`: as work grows;
#                `make bench-floors`: what stands between us and the goals)
PYTHON ?= python3
# Tests mostly wait for processes that they start and kill: three at a time take half as long as one by one, also on two cores.
TEST_PROCESSES ?= 3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve test test-python test-node lint bench bench-scale bench-floors lock clean

serve: $(VENV)/ready
	@exec $(BIN)/authstore serve

test: test-python test-node

test-python: $(VENV)/ready client/dist/ready fixtures/node_modules/ready bench/node_modules/ready
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile

test-node: client/dist/ready
	cd client && npm test --silent

lint: $(VENV)/ready client/node_modules/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	cd client && npm run --silent lint

# Options after ARGS, as in `make bench ARGS="--rounds 7"`; `make bench ARGS=--help` tells them.
bench: $(VENV)/ready client/dist/ready bench/node_modules/ready
	@$(BIN)/python -m bench $(ARGS)

bench-scale: $(VENV)/ready client/dist/ready bench/node_modules/ready
	@$(BIN)/python -m bench --scale $(ARGS)

bench-floors: $(VENV)/ready client/dist/ready bench/node_modules/ready
	@$(BIN)/python -m bench --floors $(ARGS)

$(VENV)/ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

client/node_modules/ready: client/package.json client/package-lock.json
	cd client && npm ci --silent --no-audit --no-fund
	@touch $@

client/dist/ready: client/node_modules/ready $(wildcard client/src/*.ts) client/tsconfig.json client/tsconfig.cjs.json
	cd client && npm run --silent build
	@touch $@

fixtures/node_modules/ready: fixtures/package.json fixtures/package-lock.json
	cd fixtures && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

bench/node_modules/ready: bench/package.json bench/package-lock.json
	cd bench && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

# Needs uv on PATH. The files name no registry.
lock:
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra migrate pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra dev --extra migrate pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) client/node_modules client/dist fixtures/node_modules bench/node_modules
