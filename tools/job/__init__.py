"""The steps of the workflows, each called as `tools/within . python -m tools.job.NAME`.

preflight.py   can this run start, and can its results be kept? (`make doctor` uses part of it)
storage.py     its checks of the bucket and DVC's cache; why a request to storage failed
data.py        its checks of tracked data, imports and files in git
experiment.py  reproduces the pipeline
goals.py       judges the results; with --verdict, fails if a goal was missed
share.py       pushes data to the bucket, then the results commit to git
registry.py    moves the alias `champion` in MLflow's registry
release.py     uploads a runtime to the bucket
job.py         shared helpers

Also called by `make run`, `tune` and `train`:

guarded_dvc.py   DVC with its directory listings verified
inputs.py        records what a stage reads as it was at the start of the stage
side_by_side.py  runs independent stages in parallel
train.py         trains on several workers
"""
