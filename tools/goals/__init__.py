"""Judges the results on disk by the goals in goals/, which are the team's.

`make goals` calls `python -m tools.goals`, in the environment of goals/Pipfile; the job, milestones
and runtimes do by `judge`.
"""
