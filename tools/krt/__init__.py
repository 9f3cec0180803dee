"""The .krt format: what a deployable runtime must be, told before the engine tells it."""
