"""The commands that make a copy of the template a project of its own, and keep it one."""
