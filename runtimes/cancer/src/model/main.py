"""The node `model`: from the features of one biopsy to the probability of each class."""

import json
import math

import numpy as np
import onnxruntime
from internal_nodes_pb2 import Scored
from public_input_pb2 import PredictRequest

FLOAT32_MAX = float(np.finfo(np.float32).max)
MODEL = {}  # the SDK's context keeps strings only, so the model is kept here


async def init(ctx):
    """Load the model once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a row is too small to share; the engine runs replicas
    session = onnxruntime.InferenceSession(ctx.path("assets/model.onnx"), options)
    metadata = session.get_modelmeta().custom_metadata_map
    MODEL["session"] = session
    MODEL["features"] = json.loads(metadata["feature_names"])
    MODEL["classes"] = json.loads(metadata["class_names"])


async def default_handler(ctx, data):
    """Score the request, or answer with the error in it."""
    request = PredictRequest()
    data.Unpack(request)
    scored = Scored(error=problem(request.features))
    if not scored.error:
        row = np.array([[request.features[name] for name in MODEL["features"]]])
        (probabilities,) = MODEL["session"].run(["probabilities"], {"features": row})
        if np.isfinite(probabilities).all():
            scored.probabilities.update(dict(zip(MODEL["classes"], map(float, probabilities[0]))))
        else:
            scored.error = "features: the model has no finite probability for them: check the units"
    await ctx.send_output(scored)


def problem(features):
    """The message for invalid features; empty if they are valid."""
    known = MODEL["features"]
    missing = [name for name in known if name not in features]
    if missing:
        return f"features: {listed(missing)} missing: all {len(known)} are needed"
    unknown = sorted(set(features) - set(known))
    if unknown:
        return f"features: {listed(unknown)} not known: it must be one of {', '.join(known)}"
    endless = [name for name in known if not math.isfinite(features[name])]
    if endless:
        return f"features: {listed(endless)} no finite number: it must be as measured"
    too_large = [name for name in known if abs(features[name]) > FLOAT32_MAX]
    if too_large:
        name = too_large[0]
        return f"features: {name!r} is {features[name]:g}: the model counts to {FLOAT32_MAX:g}"
    return ""


def listed(names):
    """Up to three names, how many more there are, and the verb."""
    shown = ", ".join(repr(name[:60]) for name in names[:3])
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
