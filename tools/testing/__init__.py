"""Runs the tests of processes whose locks have other versions than the root's in their versions.

`pytest` leaves them out and says so; `make test` calls `python -m tools.testing`.
"""
