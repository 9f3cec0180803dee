# Every habit in one word; `make` alone lists them.
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help todo start doctor credentials settings blank process environments setup run results goals report compare notebooks milestone test check hooks lock ui runtime-check runtime rehearse serve relog sandbox sandbox-status sandbox-down list clean shell

PIPELINE ?= dvc.yaml
DAYS ?= 1
PORT ?= 5000
WORKERS ?= 3
PROCESSES = $(dir $(wildcard lab/processes/*/Pipfile))
PROJECT = python=$$(lib/bootstrap) && PYTHONPATH=. "$$python" -m lib.project
RUNTIMES = $(dir $(wildcard runtimes/*/krt.yml))
GOALS = $(dir $(wildcard goals/Pipfile))
ENVIRONMENTS = python=$$(lib/bootstrap) && "$$python" lib/environments.py

help: ## List what there is to make
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target does; do \
		printf '  make %-14s %s\n' "$$target" "$$does"; done

todo: ## List what a project must say about itself and has not yet
	@$(PROJECT).todo

start: ## After copying: git, a first commit (TEMPLATE=address of the template, if copied by hand)
	@$(PROJECT).start $(TEMPLATE)

doctor: ## Say what is missing on this machine and in this project, and how to get it
	@$(PROJECT).doctor

credentials: ## Put your S3 credentials where git never sees them
	@lib/within . python -m lib.project.credentials

settings: ## List, or set with gh (SET=yes), the secrets and variables of the hosting site
	@export SET="$(SET)"; $(PROJECT).settings

blank: ## Take the example out of a project (git must have it)
	@lib/within --dev . python -m lib.project.blank

process: ## Add a process to the pipeline (NAME=train_model AFTER=prepare_wine)
	@lib/within --dev . python -m lib.project.process "$(NAME)" "$(AFTER)"

environments: ## Make the environments that a run needs
	@$(ENVIRONMENTS) make . $(PROCESSES) $(GOALS)

setup: environments ## Make every environment, and .venv for the editor
	@$(ENVIRONMENTS) make --dev .
	@lib/within --dev . sh -c 'ln -sfn "$$VIRTUAL_ENV" .venv && echo "Interpreter: $$VIRTUAL_ENV/bin/python (.venv)"'

run: environments ## Run the pipeline and show its results (PIPELINE=folder/dvc.yaml runs another)
	@lib/within . python -m lib.params
	@grep -q '^stages: {}' $(PIPELINE) && echo 'There is no stage yet: make process NAME=…' || \
		lib/within . dvc repro $(PIPELINE)
	@lib/within . python -m lib.results

results: ## Show the results on disk, and how they differ from those committed
	@lib/within . python -m lib.results

goals: ## Judge the results on disk by the goals of the project
	@lib/within goals python -m goals

report: ## Show what changed between two revisions (A= and B=; nothing: the work tree)
	@lib/within . python .github/scripts/report.py --from "$(A)" --to "$(B)"

compare: ## Show two revisions side by side, as text and as a page with plots (A=, B=)
	@lib/within --dev . python -m lib.compare --from "$(A)" --to "$(B)"

notebooks: ## Execute every notebook on the results on disk, from top to bottom
	@ls lab/analysis/*.ipynb >/dev/null 2>&1 || { echo 'There is no notebook in lab/analysis.'; exit 0; }; \
		lib/within --dev . python -m pytest --nbmake --nbmake-timeout=600 lab/analysis

milestone: ## Write a report on this revision to lab/docs (NAME=first-model)
	@lib/within --dev . python -m lib.milestone "$(NAME)"

test: setup check ## Run every check and every test (WORKERS=3 test files at a time)
	@lib/within --dev . python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: ## Lint, types, secrets, locks: every pre-commit hook on every file
	@SKIP=no-commit-to-branch lib/within --dev . pre-commit run --all-files

hooks: setup ## Install the git hooks of .pre-commit-config.yaml
	@.venv/bin/python -m pre_commit install

lock: ## Resolve every Pipfile into its Pipfile.lock (FOLDERS=lab/processes/NAME: these alone)
	@$(ENVIRONMENTS) lock $(FOLDERS)

ui: ## Serve the MLflow store in mlflow.db (PORT=5000)
	@lib/within --dev . python -m lib.ui $(PORT)

runtime-check: ## Say what is wrong with a .krt, or a KAI version's YAML (FILE=…)
	@lib/within . python -m runtimes.krt.check "$(FILE)"

runtime: ## Build a .krt from the tracked model (NAME=cancer VERSION=v1; ANYWAY=yes: goals missed)
	@$(ENVIRONMENTS) make . $(GOALS) runtimes/krt
	@lib/within runtimes/krt python -m runtimes.krt.build "$(NAME)" --version "$(VERSION)" $(if $(ANYWAY),--anyway)

rehearse: ## Serve a .krt and ask it what it must answer (FILE=… NAME=…: whose environment)
	@$(ENVIRONMENTS) make runtimes/krt $(RUNTIMES)
	@lib/within runtimes/krt python -m runtimes.krt.rehearse "$(FILE)" --name "$(NAME)"

serve: ## Serve a .krt over gRPC (FILE=… PORT=…)
	@$(ENVIRONMENTS) make runtimes/krt $(RUNTIMES)
	@exec lib/within runtimes/krt python -m runtimes.krt.serve "$(FILE)" --name "$(NAME)" \
		--port $(if $(filter file,$(origin PORT)),0,"$(or $(PORT),0)")

relog: ## Log results to MLflow that it has not got, because it was away
	@for name in $(notdir $(PROCESSES:/=)); do lab/processes/run $$name --relog || failed=1; done; \
		[ -z "$$failed" ]

sandbox: ## Start the platform on this machine: S3, MLflow, git origin, runner
	@lib/within sandbox python -m sandbox up

sandbox-status: ## Show what runs in the sandbox, and its latest jobs
	@lib/within sandbox python -m sandbox status

sandbox-down: ## Stop the sandbox and remove all of it
	@lib/within sandbox python -m sandbox down

-include tests/*.mk

list: ## List the environments on this machine, their size and last use
	@$(ENVIRONMENTS) list

clean: ## Remove environments that no lock here names and nobody used for DAYS=1
	@$(ENVIRONMENTS) clean $(DAYS)

shell: ## A shell in the development environment
	@exec lib/within --dev . "$${SHELL:-sh}"
