"""Converts trained models to ONNX, from raw features to probabilities, and checks them.

Called by this process's main.py, which passes fitted Pipelines of a StandardScaler and a
classifier, and writes the results. All models have the same form: one input `features`, (n, d)
float64, unscaled; one output `probabilities`, (n, 2) float32. Scaling is in float64, as in
scikit-learn; the rest in float64 or float32, whichever agrees with the original: onnxruntime has no
boosted trees in float64, and others lose their last digits in float32.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    checker,
    helper,
    numpy_helper,
)
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
from sklearn.base import ClassifierMixin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from lib.errors import UserError
from lib.pytorch import TorchClassifier

OPSET, ML_OPSET, IR_VERSION = 18, 3, 9  # of 2022: read by onnxruntime from 1.15 on
TYPES = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT}
HUGE = 1e30
# Beyond this, scikit-learn's distances are rounding errors: it expands (x - y)² and terms cancel.
HUGE_FOR_DISTANCES = 1e4


class ExportError(UserError):
    """A model cannot be converted, or no conversion agrees with it."""


def export_model(
    name: str,
    model: Pipeline,
    X: NDArray[np.float64],
    feature_names: Sequence[str],
    class_names: Sequence[str],
    tolerance: float = 1e-5,
) -> tuple[ModelProto, dict[str, Any]]:
    """The model in ONNX, and its deviation from the original: `{"max_deviation": …, …}`.

    Args:
        name: of the model, for the graph.
        model: fitted; a StandardScaler and one classifier of scikit-learn or a TorchClassifier.
        X: (n, d) raw features, on which both must agree, as on `edge_rows`.
        feature_names: of the columns of X, for the metadata, as JSON.
        class_names: of the columns of the probabilities, for the metadata, as JSON.
        tolerance: the largest allowed difference of a probability.

    Raises:
        ExportError: no type agrees within `tolerance`, or the Pipeline has other steps.
    """
    if len(model) != 2 or not isinstance(model[0], StandardScaler):
        steps = ", ".join(type(step).__name__ for _, step in model.steps)
        raise ExportError(
            f"{name} consists of {steps}: it must be a StandardScaler and one classifier."
        )
    rows, edges = np.asarray(X, dtype=np.float64), edge_rows(X, model)
    expected, expected_edges = model.predict_proba(rows), model.predict_proba(edges)
    metadata = {
        "feature_names": json.dumps(list(feature_names)),
        "class_names": json.dumps(list(class_names)),
    }
    tried = {}
    for dtype, exported in forms(name, model, rows.shape[1], metadata):
        try:
            session = create_session(exported)
            deviations = {
                "max_deviation": deviation(predict(session, rows), expected),
                "max_deviation_on_edge_values": deviation(predict(session, edges), expected_edges),
            }
        except Exception as error:  # onnxruntime's errors have no common class
            tried[dtype] = " ".join(str(error).split())[:200]
            continue
        if max(deviations.values()) <= tolerance:
            return exported, {"computed_in": dtype, **deviations}
        tried[dtype] = ", ".join(f"{key} {value:.1e}" for key, value in deviations.items())
    found = "; ".join(f"in {dtype}: {what}" for dtype, what in tried.items())
    raise ExportError(
        f"{name} in ONNX must agree with {type(model[-1]).__name__} within {tolerance:.0e}, and "
        f"does not ({found}): has its training diverged? Else choose another classifier, or export "
        "it in a way of its own."
    )


def forms(
    name: str, model: Pipeline, n_features: int, metadata: dict[str, str]
) -> Iterator[tuple[str, ModelProto]]:
    """The model in ONNX for each type that its classifier can use, the preferred first."""
    scaler, classifier = model
    network = isinstance(classifier, TorchClassifier)
    for dtype in ["float32"] if network else list(TYPES):
        graph, opsets = (
            (network_graph(classifier.network), [helper.make_opsetid("", OPSET)])
            if network
            else classifier_graph(classifier, n_features, dtype)
        )
        yield dtype, assemble(name, scaler, graph, opsets, TYPES[dtype], metadata)


def classifier_graph(
    classifier: ClassifierMixin, n_features: int, dtype: str
) -> tuple[GraphProto, list[OperatorSetIdProto]]:
    """A graph from `standardised` to `probabilities`, computed in this type, and its opsets."""
    tensor = {"float64": DoubleTensorType, "float32": FloatTensorType}[dtype]
    converted = convert_sklearn(
        classifier,
        initial_types=[("standardised", tensor([None, n_features]))],
        options={id(classifier): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )
    selected = select_model_inputs_outputs(converted, outputs=["probabilities"])
    return selected.graph, list(selected.opset_import)


def network_graph(network: nn.Sequential) -> GraphProto:
    """A graph from `standardised` to `probabilities`, with a node for each layer of the network.

    Torch's exporter would take 4 s and two packages for the same nodes.

    Raises:
        ExportError: a layer is not Linear, BatchNorm1d or ReLU.
    """
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    last = "standardised"

    def add(operator: str, tensors: dict[str, Any], **attributes: Any) -> None:
        nonlocal last
        out = f"{operator.lower()}_{len(nodes)}"
        names = [f"{out}_{key}" for key in tensors]
        weights.extend(
            numpy_helper.from_array(np.asarray(tensor.detach().cpu(), dtype=np.float32), key)
            for key, tensor in zip(names, tensors.values(), strict=True)
        )
        nodes.append(helper.make_node(operator, [last, *names], [out], **attributes))
        last = out

    for layer in network:
        if isinstance(layer, nn.Linear):
            bias = {} if layer.bias is None else {"bias": layer.bias}
            add("Gemm", {"weight": layer.weight, **bias}, transB=1)
        elif isinstance(layer, nn.BatchNorm1d):
            tensors = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            named = dict(zip(("scale", "shift", "mean", "variance"), tensors, strict=True))
            add("BatchNormalization", named, epsilon=layer.eps)
        elif isinstance(layer, nn.ReLU):
            add("Relu", {})
        else:
            raise ExportError(
                f"The network has a layer {type(layer).__name__}; exported are Linear, "
                "BatchNorm1d and ReLU: add it to network_graph in onnx_models.py."
            )
    nodes += [
        helper.make_node("Neg", [last], ["opposite"]),
        helper.make_node("Concat", ["opposite", last], ["logits"], axis=1),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    return helper.make_graph(nodes, "network", [], [], weights)


def assemble(
    name: str,
    scaler: StandardScaler,
    graph: GraphProto,
    opsets: Sequence[OperatorSetIdProto],
    dtype: int,
    metadata: dict[str, str],
) -> ModelProto:
    """A model of the scaler and a graph from `standardised` to `probabilities`."""
    d = len(scaler.scale_)
    before: list[NodeProto] = [
        helper.make_node("Sub", ["features", "scaler_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scaler_scale"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["standardised"], to=dtype),
    ]
    nodes = [*before, *graph.node]
    for node in graph.node:  # its output becomes the input of the last cast
        node.output[:] = ["uncast" if out == "probabilities" else out for out in node.output]
    nodes.append(helper.make_node("Cast", ["uncast"], ["probabilities"], to=TensorProto.FLOAT))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["n", d])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
            [
                numpy_helper.from_array(np.asarray(scaler.mean_, np.float64), "scaler_mean"),
                numpy_helper.from_array(np.asarray(scaler.scale_, np.float64), "scaler_scale"),
                *graph.initializer,
            ],
        ),
        # Sorted: skl2onnx's order is a set's, which differs between interpreters.
        opset_imports=sorted(
            (o for o in opsets if o.domain or o.version > 1), key=lambda o: o.domain
        ),
        ir_version=IR_VERSION,
        producer_name="",
    )
    helper.set_model_props(model, metadata)
    checker.check_model(model)
    return model


def edge_rows(X: NDArray[np.float64], model: Pipeline) -> NDArray[np.float64]:
    """(k, d) rows with edge values of float32: zeros, denormals, negative and huge values.

    Each value is used in all columns at once, and in each single column of the median row. Rows
    that are beyond float32 when standardised are left out, as the original models refuse them.
    """
    single = np.finfo(np.float32)
    huge = HUGE_FOR_DISTANCES if isinstance(model[-1], KNeighborsClassifier) else HUGE
    sizes = (0.0, float(single.smallest_subnormal), float(single.tiny), 1.0, 1e4, huge)
    values = [sign * size for size in sizes for sign in (1.0, -1.0)]
    ordinary = np.median(X, axis=0).astype(np.float32).astype(np.float64)
    one_column = np.eye(len(ordinary), dtype=bool)
    rows = [np.full((1, len(ordinary)), value) for value in values]
    rows += [np.where(one_column, value, ordinary) for value in values]
    edges = np.concatenate(rows)
    return edges[np.abs(model[0].transform(edges)).max(axis=1) < single.max]


def create_session(model: ModelProto) -> onnxruntime.InferenceSession:
    """A session to run the model with one thread, so that sums are the same each time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as well
    return onnxruntime.InferenceSession(to_bytes(model), options, ["CPUExecutionProvider"])


def predict(session: onnxruntime.InferenceSession, X: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 2) probabilities for (n, d) raw features."""
    return np.asarray(session.run(["probabilities"], {"features": X})[0])


def deviation(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference between two arrays of probabilities; infinite for NaN."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())


def to_bytes(model: ModelProto) -> bytes:
    """The content of the model's file, the same each time."""
    return bytes(model.SerializeToString(deterministic=True))
