# make run   sets up and runs the whole graph at micro size, then prints what came out
#            (PROFILE=name for another profile)
# make test  sets up and passes the tests
# make ci    the whole graph on the cut-down ci profile
# make paper the paper's questions: every study, resumable, and docs/results.md (hours on 2 cores;
#            QUICK=1 to see that it works, in data/paper-quick)
# make ui / make mlflow  open the Dagster UI and the model registry on the same history

PYTHON ?= python3
PROFILE ?= micro
BIN := .venv/bin
STAMP := .venv/.installed
export DAGSTER_HOME := $(CURDIR)/.dagster
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := true
UI_PORT ?= 3000
MLFLOW_PORT ?= 5000

blank := $() $()
RUN_CONFIG := $(DAGSTER_HOME)/$(subst /,_,$(subst $(blank),_,$(PROFILE))).run.yaml
export PROFILE RUN_CONFIG  # as the shell's variables, whatever characters are in them

# These have local models alone. `run` asks the profile, since a hub id may have to be downloaded.
test test-slow ci paper card: export HF_HUB_OFFLINE ?= 1

.PHONY: run test test-slow ci paper ui mlflow card lint clean

run: $(STAMP)
	@offline=$$($(BIN)/python -m orchestration.run_config --profile "$$PROFILE" --write "$$RUN_CONFIG") && \
	HF_HUB_OFFLINE=$${HF_HUB_OFFLINE:-$$offline} \
	$(BIN)/dagster job execute -m orchestration.definitions -j pipeline -c "$$RUN_CONFIG"
	@$(BIN)/python -m orchestration.summary --profile "$$PROFILE"

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pytest

# Full-size shapes on the CPU, and the probe of `ml plan`: minutes, several GB of memory.
test-slow: $(STAMP)
	$(BIN)/pytest -m slow

ci: $(STAMP)
	$(BIN)/dagster job execute -m orchestration.definitions -j pipeline -c profiles/ci.run.yaml
	$(BIN)/python -m orchestration.summary --profile ci --tracking-uri sqlite:///data/ci/mlflow.db

ui: $(STAMP)
	$(BIN)/python -m orchestration.runs
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(UI_PORT)

mlflow: $(STAMP)
	$(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --default-artifact-root mlartifacts \
		--host 127.0.0.1 --port $(MLFLOW_PORT)

paper: $(STAMP)
	$(BIN)/python -m ml.studies $(if $(filter-out 0 no false,$(QUICK)),--quick)

# Measures the foundation checkpoints and writes data/foundation/micro/MODEL_CARD.md (minutes).
card: $(STAMP)
	$(BIN)/python -m ml.foundation.measure --what all

clean:
	rm -rf data/micro data/ci data/paper-quick mlflow.db mlartifacts
	find .dagster -mindepth 1 ! -name dagster.yaml ! -name .gitignore -delete

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("Python 3.11 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip check
	touch $@
