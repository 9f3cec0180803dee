"""Sets up a project from the template, and edits its pipeline.

Each module is a make target: `todo`, `start`, `doctor`, `credentials`, `settings`, `hooks`,
`blank`, `process`, `rename`, `remove`, `sweep`, `adopt`; `manifest` is a commit hook. `todo`,
`start`, `doctor`, `settings` and `manifest` must work before there is any environment: they run on
the interpreter that `tools/environments/bootstrap` prints.
"""
