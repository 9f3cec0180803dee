.PHONY: bench
bench: setup ## Measure the speeds that the README states
	@tools/within --dev . python -m tests.bench
