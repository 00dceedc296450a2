"""Scores for masks, objects and detections, scorers for searches, and statistics of scores."""

from ._annotation import annotation_effort
from ._counts import count_errors
from ._detection import detection_precision_recall_curve, detection_scores
from ._inspection import inspection_curve
from ._instances import average_precision_score, instance_scores, match_instances
from ._matching import match_points
from ._scorers import detection_scorer, instance_scorer, mask_scorer
from ._segmentation import dice_score, iou_score, symmetric_boundary_dice_score
from ._statistics import bootstrap_mean, compare_groups, randomization_test
from ._structure import bright_share, bright_threshold, spectrum_change

__all__ = [
    "annotation_effort",
    "average_precision_score",
    "bootstrap_mean",
    "bright_share",
    "bright_threshold",
    "compare_groups",
    "count_errors",
    "detection_precision_recall_curve",
    "detection_scorer",
    "detection_scores",
    "dice_score",
    "instance_scorer",
    "instance_scores",
    "inspection_curve",
    "iou_score",
    "mask_scorer",
    "match_instances",
    "match_points",
    "randomization_test",
    "spectrum_change",
    "symmetric_boundary_dice_score",
]
