"""The parameters of export_models: its section of params.yaml."""

from lib.params import Section, Share


class ExportModels(Section):
    """tolerance: the largest difference between a probability in ONNX and the original's."""

    tolerance: Share


class Params(Section):
    """What this process reads."""

    export_models: ExportModels
