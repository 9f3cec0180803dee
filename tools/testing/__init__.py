"""Runs the tests of processes whose locks differ from the root's in their own environments.

`pytest` skips them with a notice; `make test` calls `python -m tools.testing`.
"""
