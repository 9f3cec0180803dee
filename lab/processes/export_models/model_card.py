"""Model cards in Markdown: what users must know about a model.

A short form of Mitchell et al. 2019, https://arxiv.org/abs/1810.03993. Called by this process's
main.py, which passes metrics and names and writes the result.
"""

from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

CARD = Template("""\
# $name

$what It takes the $n_features raw features of a biopsy and gives the probability of each class: \
$classes.

## Data

Breast Cancer Wisconsin (Diagnostic): digitised images of fine needle aspirates, $total rows. \
A random, stratified share was held out for testing.

$rows

## Metrics

The positive class is `$positive`, decided from a probability of 0.5 up.

$metrics

In ONNX, over all $total raw rows, a probability differs from the original model's by at most \
$max_deviation; on edge values of float32, by at most $max_deviation_on_edge_values.

## Intended use

An example of this template: research and teaching, with features measured as those of the data. \
It is **no medical device**, and no diagnosis may rest on it.

## Limits

- The data are from one hospital, before 1995. Other instruments, laboratories and patients were \
never seen; nothing is known of groups of patients, since the data do not name them.
- The test split is small: one row more or less is $one_row of accuracy on it.
- Values outside the data's ranges are answered, not refused. Check them before.
- NaN in a feature gives a probability that means nothing.

## How to load it

onnxruntime and numpy are enough:

```python
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("$name.onnx", providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
print(json.loads(metadata["feature_names"]))  # the columns of `features`
print(json.loads(metadata["class_names"]))  # the columns of `probabilities`
features = np.zeros((1, $n_features))  # (n, $n_features) float64, raw
(probabilities,) = session.run(["probabilities"], {"features": features})  # (n, 2) float32
```
""")


def model_card(
    name: str,
    what: str,
    names: Mapping[str, Sequence[str]],
    sizes: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, Any],
    exported: Mapping[str, Any],
) -> str:
    """The card of a model, the same for the same arguments.

    Args:
        name: of the model's file.
        what: a sentence on the kind of model.
        names: `features` and `classes`, as in data/processed/names.json.
        sizes: `rows` and `malignant_share` by split, as in metrics/prepare_data.json.
        metrics: measures by split, under `validation` and `test`.
        exported: `max_deviation` and `max_deviation_on_edge_values`.
    """
    rows, shares = sizes["rows"], sizes["malignant_share"]
    measures = {split: metrics[split] for split in ("validation", "test")}
    *_, positive = names["classes"]
    return CARD.substitute(
        name=name,
        what=what,
        n_features=len(names["features"]),
        classes=", ".join(f"`{label}`" for label in names["classes"]),
        positive=positive,
        total=sum(rows.values()),
        rows=table(
            ("split", "rows", positive),
            [(split, str(count), f"{shares[split]:.1%}") for split, count in rows.items()],
        ),
        metrics=table(
            ("split", *measures["test"]),
            [(split, *(f"{v:.4f}" for v in found.values())) for split, found in measures.items()],
        ),
        max_deviation=f"{exported['max_deviation']:.1e}",
        max_deviation_on_edge_values=f"{exported['max_deviation_on_edge_values']:.1e}",
        one_row=f"{1 / rows['test']:.1%}",
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
