"""Reports on results: pages and tables on top of lib/revisions.py and lib/comparison.py.

compare.py    two revisions side by side: `make compare`
results.py    the results on disk, in the terminal: `make run` and `make results`
milestone.py  a report with text by its author: `make milestone`
run_page.py   the summary page of a run: the workflow's step "Report"
"""
