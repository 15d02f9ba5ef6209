# Needs only make and a python3 between 3.10 and 3.13. Uses the active virtual environment, or
# creates .venv. `make help` lists the targets.

PYTHON ?= python3
PORT ?= 3000
PYTEST_ARGS ?=

# A worker takes one file at a time, by name: in the order of their number of tests, the files that take longest come last.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

VENV := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),$(CURDIR)/.venv)
BIN := $(VENV)/bin
EXAMPLE := example_project

# Assigned here, so an exported DAGSTER_HOME is not used: the example must not write into an
# instance that somebody works with. `make dev DAGSTER_HOME=/some/where` still does.
DAGSTER_HOME := $(CURDIR)/$(EXAMPLE)/.dagster_home

# dagster-dbt and `dagster dev` look for their executables on the PATH.
export PATH := $(BIN):$(PATH)
# dbt and Dagster send usage statistics unless told otherwise.
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := yes

# What the installation depends on. Compared by content: an environment may serve two checkouts.
fingerprint = $$( (echo "$(CURDIR)"; cat pyproject.toml constraints.txt) | cksum)

.PHONY: help setup dev example test test-fast test-histories test-slow test-duckdb test-dbt lint types contracts bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1|\2/' \
	  | while IFS='|' read -r target text; do printf '  %-10s %s\n' "$$target" "$$text"; done

setup: ## Create the virtual environment and install everything, when stale
	@test -x "$(BIN)/python" || { \
	  "$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "Python 3.10 to 3.13 is needed, $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." \
	      "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	  echo "Creating $(VENV)"; \
	  "$(PYTHON)" -m venv "$(VENV)"; }
	@test "$$(cat "$(VENV)/.dagster-sao" 2>/dev/null)" = "$(fingerprint)" || { \
	  echo "Installing into $(VENV)" \
	  && { "$(BIN)/python" -m pip --version >/dev/null 2>&1 || "$(BIN)/python" -m ensurepip -q; } \
	  && "$(BIN)/python" -m pip install -q --disable-pip-version-check \
	    -e '.[dev,duckdb,postgres]' -c constraints.txt \
	  && echo "$(fingerprint)" > "$(VENV)/.dagster-sao"; }

dev: setup ## Load the example's data and open it in Dagster, on PORT (3000)
	@mkdir -p "$(DAGSTER_HOME)"
	@test -e "$(DAGSTER_HOME)/dagster.yaml" \
	  || printf 'telemetry:\n  enabled: false\n' > "$(DAGSTER_HOME)/dagster.yaml"
	"$(BIN)/python" $(EXAMPLE)/load.py init
	DAGSTER_HOME="$$(cd "$(DAGSTER_HOME)" && pwd)" \
	  "$(BIN)/dagster" dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

# Each test module runs its own copy of the example, so that a running `make dev` is not disturbed.
example: setup ## Run the example from end to end and in a browser, with screenshots in artefacts/
	@unset DAGSTER_HOME; "$(BIN)/python" -m pytest -m 'e2e or browser' $(PYTEST_ARGS)

test: setup ## Run the tests, but for the slow ones and those of `make example`
	@unset DAGSTER_HOME; "$(BIN)/python" -m pytest $(PARALLEL) $(PYTEST_ARGS)

# What asks databases is left out.
ON_DATABASES := $(addprefix --ignore=tests/sql/,merged_tests/test_equality.py merged_tests/test_with_dbt.py proofs/test_soundness.py)
FAST := $(ON_DATABASES) tests/core tests/sql dagster_sao/core dagster_sao/sql tests/orchestration/runs/test_run_plan.py \
  tests/orchestration/automation/test_choices.py tests/orchestration/sources/test_schedule.py \
  tests/orchestration/events/test_event_schema.py

test-fast: setup ## Run the tests of pure rules, in seconds
	@unset DAGSTER_HOME; "$(BIN)/python" -m pytest $(PARALLEL) $(FAST) $(PYTEST_ARGS)

test-slow: setup ## Run the slow tests
	@unset DAGSTER_HOME; "$(BIN)/python" -m pytest -m slow $(PYTEST_ARGS)

test-histories: setup ## Run the histories that CI runs beside the tests
	@unset DAGSTER_HOME; "$(BIN)/python" -m pytest $(PARALLEL) -m 'slow and not rare' tests/histories $(PYTEST_ARGS)

# Only the engine is another one, so it is put before the environment's own.
OLD_DUCKDBS := 1.2 1.4
ON_OLD_DUCKDBS := tests/sql/merged_tests/test_equality.py tests/histories/test_views_follow_columns.py tests/warehouse/relations/test_listing.py \
  tests/orchestration/sources/test_freshness_sensor.py

test-duckdb: setup ## Run the tests of views, and some others on DuckDB, with older versions of it
	@unset DAGSTER_HOME; for version in $(OLD_DUCKDBS); do \
	  engine="$(VENV)/duckdb-$$version"; \
	  test -d "$$engine/duckdb" || "$(BIN)/python" -m pip install -q --disable-pip-version-check --no-deps \
	    --target "$$engine" "duckdb==$$version.*" || exit 1; \
	  PYTHONPATH="$$engine" "$(BIN)/python" -c 'import duckdb; print("DuckDB", duckdb.__version__)' \
	  && PYTHONPATH="$$engine" "$(BIN)/python" -m pytest $(PARALLEL) $(ON_OLD_DUCKDBS) $(PYTEST_ARGS) || exit 1; \
	done

# dbt-core from 1.12 on asks for packages that these tests do not need and that are downloaded from elsewhere, so it is
# installed without what it depends on: only metricflow is not in the environment yet. Of 1.13 there are only betas.
NEW_DBTS := 1.12 1.13
OLDEST := $(VENV)/oldest
ON_OTHER_DBTS := --ignore=tests/trace/test_equal_answers.py tests/core/code tests/core/manifest tests/trace tests/histories/test_on_error.py \
  $(addprefix tests/orchestration/,private dbt/test_commands.py dbt/test_traces.py events/test_event_schema.py \
  project/test_dbt_arguments.py project/test_manifest_inputs.py selection runs/test_execution.py)
PIP_INSTALL := -m pip install -q --disable-pip-version-check

test-dbt: setup ## Run some tests with newer versions of dbt, and with the oldest dagster and dbt that are supported
	@unset DAGSTER_HOME; for version in $(NEW_DBTS); do \
	  dbt="$(VENV)/dbt-$$version"; \
	  test -d "$$dbt/dbt" || "$(BIN)/python" $(PIP_INSTALL) --no-deps --target "$$dbt" \
	    "dbt-core==$$version.*,>=$$version.0b1" 'metricflow>=0.213,<1' || exit 1; \
	  PYTHONPATH="$$dbt" "$(BIN)/python" -c 'import dbt.version; print("dbt", dbt.version.__version__)' \
	  && PYTHONPATH="$$dbt" "$(BIN)/python" -m pytest $(PARALLEL) $(ON_OTHER_DBTS) $(PYTEST_ARGS) || exit 1; \
	done
	@unset DAGSTER_HOME; cmp -s constraints-oldest.txt "$(OLDEST)/constraints.txt" || { \
	  "$(BIN)/python" -m venv --clear "$(OLDEST)" \
	  && "$(OLDEST)/bin/python" $(PIP_INSTALL) -e '.[duckdb,postgres]' -c constraints-oldest.txt \
	    'pytest>=8.2' pytest-xdist hypothesis filelock psutil requests \
	  && cp constraints-oldest.txt "$(OLDEST)/constraints.txt"; } || exit 1; \
	export PATH="$(OLDEST)/bin:$$PATH"; \
	python -c 'import dagster, dbt.version; print("dagster", dagster.__version__, "dbt", dbt.version.__version__)' \
	&& python -m pytest $(PARALLEL) $(ON_OTHER_DBTS) $(PYTEST_ARGS)

lint: setup ## Check style and formatting
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check

types: setup ## Check types
	"$(BIN)/mypy"

contracts: setup ## Check that imports follow the layers
	"$(BIN)/lint-imports"

bench: setup ## Run the benchmarks
	"$(BIN)/python" -m benchmarks

clean: ## Remove the example's state, caches and artefacts; .venv stays
	rm -rf artefacts build dist benchmarks/results .mypy_cache .ruff_cache .pytest_cache \
	  .import_linter_cache .grimp_cache .hypothesis \
	  $(EXAMPLE)/.dagster_home $(EXAMPLE)/warehouse
	find $(EXAMPLE) -type d \( -name target -o -name logs -o -name dbt_packages \) \
	  -prune -exec rm -rf {} +
	find dagster_sao dbt_dagster_sao tests benchmarks $(EXAMPLE) -type d -name __pycache__ -prune -exec rm -rf {} +
