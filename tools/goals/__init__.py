"""Judges the results on disk by the goals in goals/, which are the team's.

`make goals` and the workflow call `python -m tools.goals`, in the environment of goals/Pipfile.
"""
