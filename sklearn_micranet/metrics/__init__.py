"""Scores for masks and for detections."""

from ._detection import detection_precision_recall_curve, detection_scores
from ._matching import match_points
from ._segmentation import dice_score, iou_score, symmetric_boundary_dice_score

__all__ = [
    "detection_precision_recall_curve",
    "detection_scores",
    "dice_score",
    "iou_score",
    "match_points",
    "symmetric_boundary_dice_score",
]
