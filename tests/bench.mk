Upkeep += bench
.PHONY: bench
bench: setup ## Measure the speeds that tests/README.md states
	@tools/within --dev . python -m tests.bench
