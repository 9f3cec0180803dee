# All commands; `make` alone lists them in groups.
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
unexport PYTHONHOME PYTHONEXECUTABLE PYTHONOPTIMIZE PYTHONPLATLIBDIR PYTHONWARNINGS
export PYTHONUTF8 := 1
export PYTHONIOENCODING := utf-8:replace

ifneq ($(shell grep -l "$$(printf '\r')" tools/environments/bootstrap 2>/dev/null),)
$(error the files have Windows line endings (CRLF), with which no script runs: \
	`git config core.autocrlf false`, take `eol=crlf` out of .gitattributes, commit or stash \
	what you changed, then `git rm -rq --cached . && git reset -q --hard`)
endif

# An update merges these; all commands import lib/.
conflicting := $(shell grep -l '^<<<<<<< ' lib/*.py .dvcignore .github/workflows/*.yml 2>/dev/null)
ifneq ($(conflicting),)
$(error a merge left conflict marks in $(conflicting): resolve them first)
endif

ifeq ($(wildcard .git)$(filter doctor start todo,$(MAKECMDGOALS)),)
$(warning this folder is no git repository yet, which most commands need: `make start` makes it one)
endif

# Every target, by what it is for.
GROUPS := Every_day A_new_project_or_clone A_pipeline_of_your_own Sweeps_and_several_workers Reports
Every_day := run test results goals compare ui shell
A_new_project_or_clone := doctor todo start credentials settings setup hooks
A_pipeline_of_your_own := process rename-process remove-process blank lock
Sweeps_and_several_workers := sweep tune adopt train ray-head ray-worker
Reports := notebooks milestone
Upkeep := check audit platforms relog environments list clean
-include tools/*/targets.mk
GROUPS += Upkeep
.PHONY: help $(foreach group,$(GROUPS),$($(group)))

# The arguments of targets. As they are assigned here, only make's command line can set them, not an
# environment variable that happens to have the same name (WSL exports NAME).
ARGUMENTS := A ADDRESS AFTER ALLOW ANYWAY B EXAMPLE FILE FOLDERS FROM KIND NAME RUNTIMES SANDBOX SET STAGES TARGET TASK TEMPLATE TO UPGRADE VERSION
$(foreach argument,$(ARGUMENTS),$(eval $(argument) :=))
DAYS := 1
JOBS := 1
PIPELINE := dvc.yaml
PORT := 5000
RAY_PORT := 6379
WORKERS := $(or $(shell getconf _NPROCESSORS_ONLN 2>/dev/null),2)

# One that is misspelled, or another target's, would be ignored: `make tune NAME=…` would run every
# sweep. What a target takes is in its description, as NAME=….
ifeq ($(MAKELEVEL),0)
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
ifneq ($(given),)
hash := \#
goals := $(filter $(foreach group,$(GROUPS),$($(group))),$(MAKECMDGOALS))
taken := $(shell sed -n -e '' $(foreach goal,$(goals),-e 's/^$(goal):.*$(hash)$(hash) //p') $(MAKEFILE_LIST) | grep -o '[A-Z_]*=' | tr -d =)
ifneq ($(filter-out $(taken),$(given)),)
# Of an unknown target, make itself says so.
ifeq ($(filter-out $(goals),$(MAKECMDGOALS)),)
$(error $(filter-out $(taken),$(given))= is not an argument of `make $(or $(MAKECMDGOALS),help)`, which takes \
	$(or $(taken),none); environment variables go before `make`)
endif
endif
endif
endif

# An argument quoted for the shell, with its spaces, quotes and other special characters.
quoted = '$(subst ','\'',$(value $(1)))'

# Empty unless an argument such as UPGRADE=yes is set; no, 0 and false count as not set.
yes = $(filter-out no 0 false,$(1))

PROCESSES = $(dir $(wildcard lab/processes/*/Pipfile))
PROJECT = python=$$(tools/environments/bootstrap) && PYTHONPATH=. "$$python" -m tools.project
GOALS = $(dir $(wildcard goals/Pipfile))
ENVIRONMENTS = python=$$(tools/environments/bootstrap) && PYTHONPATH=. "$$python" -m tools.environments

help: ## List what there is to make
	@echo 'Every command does its own set-up. Start with `make run`; `make doctor` says what is missing.'
	@$(foreach group,$(GROUPS),printf '\n%s\n' '$(subst _, ,$(group))';$(foreach target,$($(group)), \
		printf '  make %-15s %s\n' $(target) "$$(sed -n 's/^$(target):.*## //p' $(MAKEFILE_LIST))";))

todo: ## List the values that a project must still fill in
	@$(PROJECT).todo

start: ## First commit of a copy (by hand: TEMPLATE=… EXAMPLE=no RUNTIMES=no SANDBOX=no)
	@$(PROJECT).start $(call quoted,EXAMPLE) $(call quoted,RUNTIMES) $(call quoted,SANDBOX) $(if $(TEMPLATE),$(call quoted,TEMPLATE))

doctor: ## Say what is missing on this machine and in this project, and how to get it
	@$(PROJECT).doctor

credentials: ## Store your S3 credentials in a file that git ignores
	@tools/within . python -m tools.project.credentials

settings: ## List, or set with gh (SET=yes), the secrets and variables of the hosting site
	@export SET="$(call yes,$(SET))"; $(PROJECT).settings

blank: ## Remove the example (it must be committed)
	@tools/within --dev . python -m tools.project.blank

process: ## Add a process (NAME=… AFTER=… KIND=empty|table|sklearn|torch TASK=… TARGET=…)
	@tools/within --dev . python -m tools.project.process $(call quoted,NAME) $(call quoted,AFTER) $(call quoted,KIND) $(call quoted,TASK) $(call quoted,TARGET)

rename-process: ## Rename a process; no stage runs again (FROM=train_model TO=train_prices)
	@tools/within --dev . python -m tools.project.rename $(call quoted,FROM) $(call quoted,TO)

remove-process: ## Remove a process with its stage, section, outs and metrics (NAME=train_model)
	@tools/within --dev . python -m tools.project.remove $(call quoted,NAME)

environments: ## Make the environments that a run needs (FOLDERS=…: more of them)
	@$(ENVIRONMENTS) make . tools/tracking $(PROCESSES) $(GOALS) $(FOLDERS)

setup: environments ## Make every environment, and .venv for the editor (FOLDERS=…: more of them)
	@$(ENVIRONMENTS) make --dev .
	@[ -L .venv ] || [ ! -e .venv ] || { echo '.venv is there and is no link of `make setup`: move it away.' >&2; exit 1; }
	@tools/within --dev . sh -c 'ln -sfn "$$VIRTUAL_ENV" .venv && echo "Interpreter: $$VIRTUAL_ENV/bin/python (.venv)"'

run: environments ## Run the pipeline, show results (JOBS=2: in parallel; PIPELINE=dir/dvc.yaml)
	@tools/within . python -m lib.params
	@p=$(call quoted,PIPELINE); file="$${p%%:*}"; \
		[ -f "$$file" ] || { echo "There is no file '$$file' to run: PIPELINE= names a pipeline's, such as lab/pipelines/mine/dvc.yaml." >&2; exit 1; }; \
		grep -q '^stages: {}' "$$file" || \
		tools/within . python -m tools.job.$(if $(filter 1,$(JOBS)),guarded_dvc repro,side_by_side $(call quoted,JOBS)) "$$p"
	@tools/within . python -m tools.report.results
	@tools/within . python -m tools.tracking.check

train: environments ## Run a training stage on several workers (WORKERS=2 NAME=stage)
	@tools/within . python -m lib.params
	@tools/within . python -m tools.job.train $(if $(filter command,$(firstword $(origin WORKERS))),$(call quoted,WORKERS),'') $(call quoted,NAME)
	@tools/within . python -m tools.report.results

sweep: ## Add a sweep over the parameters of a process (NAME=train_prices)
	@tools/within --dev . python -m tools.project.sweep $(call quoted,NAME)

tune: ## Run the sweeps in lab/tuning, on Ray if RAY_ADDRESS is set (STAGES=tune_x)
	@[ -f lab/tuning/dvc.yaml ] || { echo 'There is no sweep yet: make sweep NAME=a process.'; exit 1; }
	@$(ENVIRONMENTS) make . tools/tracking lab/tuning
	@tools/within . python -m lib.params
	@tools/within . python -m tools.job.guarded_dvc repro $(or $(addprefix lab/tuning/dvc.yaml:,$(STAGES)),lab/tuning/dvc.yaml)
	@tools/within . python -m tools.tracking.check
	@echo 'Next: make adopt$(if $(STAGES), STAGES="$(STAGES)"), which writes the best values into params.yaml.'

adopt: ## Write the best values into params.yaml, show the difference (STAGES=tune_x)
	@tools/within . python -m tools.project.adopt $(STAGES)

ray-head: ## Start a Ray cluster on this machine, until Ctrl-C (RAY_PORT=6379)
	@$(ENVIRONMENTS) make lab/tuning
	@exec tools/within lab/tuning python -m tools.ray_node head $(call quoted,RAY_PORT)

ray-worker: ## Join a Ray cluster as a worker, until Ctrl-C (ADDRESS=head:6379)
	@$(ENVIRONMENTS) make lab/tuning
	@exec tools/within lab/tuning python -m tools.ray_node worker $(call quoted,ADDRESS)

results: ## Show the results on disk, and how they differ from those committed
	@tools/within . python -m tools.report.results

goals: ## Judge the results on disk by the goals of the project
	@tools/within $(if $(GOALS),goals,--dev .) python -m tools.goals

compare: ## Compare two revisions, as text and as a page (A=before B=after)
	@tools/within --dev . python -m tools.report.compare --from=$(call quoted,A) --to=$(call quoted,B)

notebooks: ## Execute every notebook on the results on disk, from top to bottom
	@find lab/analysis -name '*.ipynb' | grep -q . || { echo 'There is no notebook in lab/analysis.'; exit 0; }; \
		tools/within --dev . python -m pytest -W ignore::FutureWarning:nbformat.validator \
			-p nbmake --nbmake --nbmake-kernel=python3 --nbmake-timeout=600 lab/analysis

milestone: ## Write a report on this revision to lab/docs (NAME=first-model)
	@tools/within --dev . python -m tools.report.milestone $(call quoted,NAME)

test: setup check ## Run every check and every test (WORKERS=2 test files at a time)
	@tools/within --dev . python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	@tools/within --dev . python -m tools.testing

check: ## Run every pre-commit hook on every file: format, lint, types, secrets, locks
	@SKIP="no-commit-to-branch,$$SKIP" tools/within --dev . pre-commit run --all-files

audit: ## List known vulnerabilities of locked packages (asks OSV)
	@$(ENVIRONMENTS) audit

platforms: ## Show what each lock installs on each platform (asks the index)
	@$(ENVIRONMENTS) platforms

hooks: setup ## Install the git hooks: those of .pre-commit-config.yaml, and dvc checkout
	@tools/within --dev . python -m tools.project.hooks

lock: ## Update locks that do not fit their Pipfiles (FOLDERS=… UPGRADE=yes: newest)
	@$(ENVIRONMENTS) lock $(if $(call yes,$(UPGRADE)),--upgrade) $(FOLDERS)

ui: ## Serve the MLflow store in mlflow.db (PORT=5000)
	@tools/within --dev . python -m tools.tracking.ui $(call quoted,PORT)

relog: ## Log results that MLflow missed while it was down (STAGES=…: only these)
	@tools/within tools/tracking python -m tools.tracking relog $(STAGES)

-include tests/*.mk

list: ## List the environments on this machine, their size and last use
	@$(ENVIRONMENTS) list

clean: ## Remove environments that no lock names and nobody used for days (DAYS=1)
	@$(ENVIRONMENTS) clean $(call quoted,DAYS)

shell: ## A shell in the development environment
	@exec tools/within --dev . tools/environments/shell
