"""Masks, counts and detections from image-level labels, in scikit-learn's manner."""

from importlib import import_module

__version__ = "0.1.0.dev0"

__all__ = [  # in data-flow order
    "datasets",
    "images",
    "IntensityScaler",
    "MicraNetClassifier",
    "MicraNetEnsemble",
    "TunedThresholdsClassifierCV",
    "GradCAMFeatureTransformer",
    "PCAFeatureMap",
    "GuidedFeatureMap",
    "ThresholdSegmenter",
    "HungarianDetector",
    "UNetSegmenter",
    "FieldSegmenter",
    "metrics",
    "displays",
]

# Imported when first used: importing this package must import neither torch nor scikit-image.
_MODULES = {
    "IntensityScaler": "_intensity_scaler",
    "MicraNetClassifier": "_classifier",
    "MicraNetEnsemble": "_ensemble",
    "TunedThresholdsClassifierCV": "_tuned_thresholds_classifier",
    "GradCAMFeatureTransformer": "_gradcam_feature_transformer",
    "PCAFeatureMap": "_pca_feature_map",
    "GuidedFeatureMap": "_guided_feature_map",
    "ThresholdSegmenter": "_threshold_segmenter",
    "HungarianDetector": "_hungarian_detector",
    "UNetSegmenter": "_unet_segmenter",
    "FieldSegmenter": "_field_segmenter",
}


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
