"""Scores for masks, objects and detections, and scorers for searches."""

from ._counts import count_errors
from ._detection import detection_precision_recall_curve, detection_scores
from ._instances import average_precision_score, instance_scores, match_instances
from ._matching import match_points
from ._scorers import detection_scorer, instance_scorer, mask_scorer
from ._segmentation import dice_score, iou_score, symmetric_boundary_dice_score

__all__ = [
    "average_precision_score",
    "count_errors",
    "detection_precision_recall_curve",
    "detection_scorer",
    "detection_scores",
    "dice_score",
    "instance_scorer",
    "instance_scores",
    "iou_score",
    "mask_scorer",
    "match_instances",
    "match_points",
    "symmetric_boundary_dice_score",
]
