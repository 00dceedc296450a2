"""Figures of what was learned and found, drawn as scikit-learn's displays are."""

from importlib import import_module

_MODULES = {
    "TrainingDisplay": "_training_display",
    "LocalMapsDisplay": "_local_maps_display",
    "MaskDisplay": "_mask_display",
    "DetectionDisplay": "_detection_display",
    "DetectionPrecisionRecallDisplay": "_detection_precision_recall_display",
    "InspectionDisplay": "_inspection_display",
    "write_decisions": "_decisions",
    "read_decisions": "_decisions",
}
__all__ = [*_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
