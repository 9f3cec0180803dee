"""The parameters of export_models: its section of params.yaml."""

from lib.params import Section, Share


class ExportModels(Section):
    """tolerance: by how much a probability in ONNX may differ from the original's."""

    tolerance: Share


class Params(Section):
    """What this process reads."""

    export_models: ExportModels
