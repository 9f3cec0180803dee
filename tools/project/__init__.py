"""What makes a copy of the template a project of its own, and keeps it one.

Called by make: `todo`, `start`, `doctor`, `credentials`, `settings`, `hooks`, `blank`, `process`,
`rename` and `remove` (a process), `sweep`, `adopt`; `manifest` by a commit hook. What must work
before there is any environment (`todo`, `start`, `doctor`, `settings`, `manifest`) runs on the
interpreter that `tools/environments/bootstrap` prints.
"""
