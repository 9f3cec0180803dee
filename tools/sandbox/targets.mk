GROUPS += Trying_a_run_by_tag_here
Trying_a_run_by_tag_here := sandbox sandbox-status sandbox-down

sandbox: ## Start the platform on this machine: S3, MLflow, git origin, runner
	@tools/within tools/sandbox python -m tools.sandbox up

sandbox-status: ## Show what runs in the sandbox, and its latest jobs
	@tools/within tools/sandbox python -m tools.sandbox status

sandbox-down: ## Stop the sandbox and remove all of it
	@tools/within tools/sandbox python -m tools.sandbox down
