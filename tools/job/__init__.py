"""What the steps of the workflows call, each as `tools/within . python -m tools.job.NAME`.

preflight.py   can this run start, and can its results be kept? (`make doctor` asks a part of it)
experiment.py  reproduces the pipeline
goals.py       judges the results; with --verdict, fails where a goal was missed
share.py       data to the bucket, then the results commit
registry.py    the alias `champion` in MLflow's registry
release.py     a runtime to the bucket
job.py         what they share

By `make run`, `tune` and `train` as well:

guarded_dvc.py   DVC, with the listings of folders checked
inputs.py        what a stage reads, noted as it was when it began
side_by_side.py  stages that do not depend on each other, at once
train.py         a training on several workers
"""
