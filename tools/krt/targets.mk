GROUPS += Production
Production := runtime rehearse serve runtime-check

RUNTIME_FOLDERS = $(dir $(wildcard runtimes/*/krt.yml))

runtime-check: ## List the problems of a .krt, or of a KAI version's YAML (FILE=…)
	@tools/within . python -m tools.krt.check $(call quoted,FILE)

runtime: ## Build a .krt from the tracked model (NAME=… VERSION=v1 ANYWAY=yes)
	@$(ENVIRONMENTS) make . $(GOALS) tools/krt
	@tools/within tools/krt python -m tools.krt.build $(call quoted,NAME) --version=$(call quoted,VERSION) $(if $(call yes,$(ANYWAY)),--anyway)

rehearse: ## Serve a .krt, which runs its code, and test it (FILE=… NAME=… ALLOW=…)
	@$(ENVIRONMENTS) make tools/krt $(RUNTIME_FOLDERS)
	@$(if $(ALLOW),RUNTIME_ALLOW=$(call quoted,ALLOW)) tools/within tools/krt python -m tools.krt.rehearse $(call quoted,FILE) --name $(call quoted,NAME)

serve: ## Serve a .krt over gRPC, which runs its code (FILE=… NAME=… PORT=… ALLOW=…)
	@$(ENVIRONMENTS) make tools/krt $(RUNTIME_FOLDERS)
	@$(if $(ALLOW),RUNTIME_ALLOW=$(call quoted,ALLOW)) exec tools/within tools/krt python -m tools.krt.serve $(call quoted,FILE) --name $(call quoted,NAME) \
		--port $(if $(filter file,$(origin PORT)),0,"$(or $(PORT),0)")
