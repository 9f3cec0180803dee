"""Judges the results on disk by the team's goals in goals/.

`make goals` calls `python -m tools.goals`, in the environment of goals/Pipfile; jobs, milestones
and runtimes call it through `judge`.
"""
