.PHONY: bench
bench: setup ## Measure the speeds that the README states
	@lib/within --dev . python -m tests.bench
