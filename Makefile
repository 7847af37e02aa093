PYTHON ?= python3
PROFILE ?= micro
BIN := .venv/bin
STAMP := .venv/.installed
TOOLS := .venv/tools
export DAGSTER_HOME := $(CURDIR)/.dagster
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := true
export NO_MKDOCS_2_WARNING := true
UI_PORT ?= 3000
MLFLOW_PORT ?= 5000
APP_PORT ?= 7860
DOCS_PORT ?= 8000

blank := $() $()
RUN_CONFIG := $(DAGSTER_HOME)/$(subst /,_,$(subst $(blank),_,$(PROFILE))).run.yaml
# A shell may have a ROOT that means something else, so that one is not taken. TRACKING_URI is: other tools
# do not use that name (MLflow's own is MLFLOW_TRACKING_URI).
ifneq ($(origin ROOT),command line)
ROOT := $(WORDS_TO_MASKS_ROOT)
endif
WHERE := $(if $(ROOT),--root "$$ROOT") $(if $(TRACKING_URI),--tracking-uri "$$TRACKING_URI")
export PROFILE ROOT TRACKING_URI RUN_CONFIG  # as the shell's variables, whatever characters are in them

# These have local models alone. `run` asks the profile, since a hub id may have to be downloaded.
test test-slow fuzz ci paper card: export HF_HUB_OFFLINE ?= 1

# As many workers as cores, so one thread of torch for each. In the folders' order, which ends with
# cheap files: xdist's own begins with files of many tests, and one worker waits for the other at the end.
test: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help run app test test-slow test-browser fuzz lint bench chaos ci audit sbom paper docs docs-serve ui mlflow card clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(STAMP)  ## makes the environment, runs the whole graph, prints what came out (PROFILE=name, ROOT=folder or address, TRACKING_URI)
	@offline=$$($(BIN)/python -m orchestration.run_config --profile "$$PROFILE" $(WHERE) --write "$$RUN_CONFIG") && \
	HF_HUB_OFFLINE=$${HF_HUB_OFFLINE:-$$offline} \
	$(BIN)/dagster job execute -m orchestration.definitions -j pipeline -c "$$RUN_CONFIG"
	@$(BIN)/python -m orchestration.summary --profile "$$PROFILE" $(WHERE)

app: $(STAMP)  ## draw, find, browse and compare in a browser on this machine (PROFILE=name, ROOT=folder, APP_PORT)
	$(BIN)/python -m ml app --profile "$$PROFILE" --port $(APP_PORT) $(if $(ROOT),--root "$$ROOT")

test: $(STAMP) lint  ## makes the environment, passes lint and the tests
	$(BIN)/pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## full-size shapes, the probe of `ml plan`, a wheel in an empty environment (many minutes)
	$(BIN)/pytest -m slow

test-browser: $(STAMP)  ## what people touch, in a real Chromium (apt-get install chromium)
	$(BIN)/pytest -m browser tests/browser

fuzz: $(STAMP)  ## hostile input by the thousand, other each time (an hour; SEED=7 for other commands)
	$(BIN)/pytest tests/fuzz --hypothesis-profile long
	$(BIN)/python -m tests.fuzz --seed $(or $(SEED),7) --count 400

lint: $(STAMP)  ## ruff, its formatter, the import contracts, the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

bench: $(STAMP)  ## speed and memory as ratios to baselines of the same run (minutes; without a GPU at a tiny shape)
	$(BIN)/python -m benchmarks

chaos: $(STAMP)  ## kills the graph at random moments and judges what is left (KILLS, ENGINES, SEED, MINUTES)
	$(BIN)/python -m tests.chaos $(if $(KILLS),--kills $(KILLS)) $(if $(ENGINES),--engines $(ENGINES)) \
		$(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

ci: $(STAMP)  ## the whole graph on the cut-down ci profile
	$(BIN)/dagster job execute -m orchestration.definitions -j pipeline -c profiles/ci.run.yaml
	$(BIN)/python -m orchestration.summary --profile ci --tracking-uri sqlite:///data/ci/mlflow.db

ui: $(STAMP)  ## opens the Dagster UI on the same history
	$(BIN)/python -m orchestration.runs
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(UI_PORT)

mlflow: $(STAMP)  ## opens the model registry (of ROOT or TRACKING_URI, as `run`)
	$(BIN)/python -m orchestration.mlflow.serve --port $(MLFLOW_PORT) $(WHERE)

audit: $(STAMP)  ## known vulnerabilities of the pinned packages, where their database can be reached
	$(BIN)/python .ci/audit.py

sbom: $(STAMP) $(TOOLS)/.installed  ## a bill of materials of the environment, sbom.json (CycloneDX), equal for equal environments
	$(TOOLS)/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml -o sbom.json $(BIN)/python

paper: $(STAMP)  ## the paper's questions: every study, resumable, and docs/results.md (hours; QUICK=1 to see that it works)
	$(BIN)/python -m ml.studies $(if $(filter-out 0 no false,$(QUICK)),--quick)

docs: $(STAMP)  ## builds the guides and the API as a site, site/index.html; strict, nothing is fetched
	$(BIN)/mkdocs build --strict --clean

docs-serve: $(STAMP)  ## shows them on 127.0.0.1, as they are edited
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:$(DOCS_PORT)

card: $(STAMP)  ## measures the foundation checkpoints and writes their card (minutes)
	$(BIN)/python -m ml.foundation.measure --what all

# Beside them lies what people made or brought: audit/marks.json, taught/, exports/, files of their own.
clean:  ## removes what the runs of micro and ci made, and their history; what people made there stays
	made="champion quality .locks .making .state summary.json mlflow.db mlartifacts \
		$$($(PYTHON) -c 'from ml.pipeline.table import STAGES; print(*(s.name for s in STAGES))')" && \
	for profile in data/micro data/ci; do \
		for name in $$made; do rm -rf "$$profile/$$name"; done; \
		if [ -d "$$profile" ]; then find "$$profile" -maxdepth 0 -empty -delete; fi; \
	done
	rm -rf data/paper-quick mlflow.db mlartifacts
	find .dagster -mindepth 1 ! -name dagster.yaml ! -name .gitignore -delete

# The dependencies alone, of the project and of all its extras: the checkout's own code is run in
# place, so that no installed copy of it can be the one that a test sees.
define WANTED
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *sum(project["optional-dependencies"].values(), []), sep="\n")
endef
export WANTED

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 14) or sys.exit("Python 3.11 to 3.14 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -c "$$WANTED" > .venv/requirements.txt
	$(BIN)/pip install --quiet -r .venv/requirements.txt -c constraints.txt
	$(BIN)/pip check
	touch $@

# In an environment of its own: beside the others it would bring jsonschema a grammar of addresses,
# which is built whenever anything imports it, 1.4 s of every process of Ray and of the checks.
$(TOOLS)/.installed: constraints.txt | $(STAMP)
	$(BIN)/python -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet 'cyclonedx-bom>=7.5' -c constraints.txt
	touch $@
