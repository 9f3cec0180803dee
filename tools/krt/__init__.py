"""The .krt format: builds, checks, serves and rehearses deployable runtimes."""
