"""Outlines from labels of images: guided maps against the paper's maps and Otsu's threshold.

All methods look through the same networks, one for each data set and seed, trained on labels only.
Masks of the scored images choose nothing. Each score is a ratio of sums over images, with a
bootstrapped 95 % interval over images: the mean IoU, Dice and boundary Dice of the classes with a
true or a predicted mask, and the F1 of objects, the components of masks, at an IoU of 0.5.
White cells are known by their boxes: of them, the mean box IoU and the F1 at a box IoU of 0.5.
Exits with 1 if the guided maps are more than 0.01 below the best of the others anywhere.

Digits, textures and fibres are made here, the other sets are read from the folder of ``--data``::

    python examples/benchmarks/outlines.py --sets digits fibres --seeds 0 1 2
    python examples/benchmarks/outlines.py --sets nuclei --data folder --ablate

With ``--cache`` networks and scores are kept: a second call goes on where the first has ended.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
from _outline_pictures import show_worst
from _outline_sets import BOXES, SETS, network
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.stats import bootstrap
from skimage.filters import threshold_otsu
from sklearn.frozen import FrozenEstimator

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.metrics import (
    dice_score,
    instance_scores,
    iou_score,
    symmetric_boundary_dice_score,
)

OF_MASKS = {"IoU": iou_score, "Dice": dice_score, "boundary": symmetric_boundary_dice_score}
ABLATIONS = {  # parameters, and what replaces parts of the package
    "features: intensity": ({"features": "intensity"}, {}),
    "features: both": ({"features": "both"}, {}),
    "features: texture": ({"features": "texture"}, {}),
    "no ceiling": ({}, {"_guided._recipe.ceiling_of": lambda *_: np.nan}),
    "no blur, no ceiling": (
        {},
        {
            "_guided._recipe.ceiling_of": lambda *_: np.nan,
            "_guided._recipe._IS_BLURRED": False,
        },
    ),
    "noise not equalised": (
        {},
        {
            "_guided._recipe.equalise_noise": lambda image, curve: (
                np.asarray(image, np.float32) / curve.deviation((curve.low + curve.high) / 2)
            )
        },
    ),
    "no calm": ({}, {"_guided._recipe._CALM": 0.0}),
    "no smallest contrast": ({}, {"_guided._recipe._MIN_CONTRAST": 0.0}),
    "classes by the gate": (
        {},
        {"_guided._recipe.share_out": lambda belief, foreground: belief.argmax(axis=0)},
    ),
    "outline at equal odds": (
        {},
        {
            "_guided._texture.middle_of_evidence": lambda likelihood, _: np.zeros(
                likelihood.shape[1] - 1, np.float32
            )
        },
    ),
    "gate at the outline, too": (
        {},
        {"_guided._texture.grow": lambda mask, n: np.zeros_like(mask)},
    ),
    "no area rule": ({}, {"_guided._texture.exponents": lambda area: (1 + 0 * area, 1 + 0 * area)}),
    "no wide features": ({}, {"_guided._recipe.DENSE_FROM": 2.0}),
    "no half turn": ({}, {"_guided_feature_map.survives_half_turn": lambda *_: False}),
}


def otsu_of_image(images, coarse):
    """Otsu's threshold of the image; each pixel goes to the class whose L8 is the largest."""
    masks = np.zeros(coarse.shape, dtype=bool)
    for mask, image, maps in zip(masks, images, coarse, strict=True):
        grey = image if image.ndim == 2 else -image.mean(axis=2)  # stains are dark
        present = maps.any(axis=(1, 2))
        winner = np.where(present, maps.transpose(1, 2, 0) + 1e-9, 0).argmax(axis=2)
        classes = np.arange(len(maps))[:, np.newaxis, np.newaxis]
        mask[:] = (grey > threshold_otsu(grey)) & (winner == classes)
        mask[~present] = False
    return masks


def masks_of_methods(classifier, images, labels, test):
    """Yield the name of each method, its masks, and seconds an image."""
    frozen = FrozenEstimator(classifier)
    local_maps = GradCAMFeatureTransformer(frozen).fit(images).transform(test)
    coarse = np.array(list(local_maps.layer("L8")))
    yield "coarse", coarse > 0, np.nan
    start = perf_counter()
    feature_maps = PCAFeatureMap().fit_transform(local_maps)
    paper = ThresholdSegmenter().fit(feature_maps).predict(feature_maps)
    yield "paper", paper, (perf_counter() - start) / len(test)
    start = perf_counter()
    yield "Otsu", otsu_of_image(test, coarse), (perf_counter() - start) / len(test)
    yield "guided", *guided_masks(frozen, images, labels, test)


def guided_masks(frozen, images, labels, test, **params):
    step = GuidedFeatureMap(frozen, random_state=0, **params)
    start = perf_counter()
    step.fit(images, labels)
    print(
        f"  {sorted(set(step.features_))}, separation {step.separation_.round(2)}, half turn "
        f"{step.is_turned_}, fit {perf_counter() - start:.1f} s"
    )
    start = perf_counter()
    masks = np.array([maps > 0.5 for maps in step.transform(test)])
    return masks, (perf_counter() - start) / len(test)


def components(masks):
    return np.array([[ndimage.label(m, np.ones((3, 3)))[0] for m in maps] for maps in masks])


def boxes_of(instances):
    """Return (top, left, bottom, right) of each object, in px."""
    found = ndimage.find_objects(instances)
    return np.array([[r.start, c.start, r.stop, c.stop] for r, c in found if r]).reshape(-1, 4)


def box_overlaps(true, pred):
    """Return the IoU of each true box with each predicted one."""
    true, pred = true[:, np.newaxis], pred[np.newaxis]
    low, high = np.maximum(true[..., :2], pred[..., :2]), np.minimum(true[..., 2:], pred[..., 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = (np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (true, pred))
    return both / (sum(areas) - both)


def terms_of_boxes(truth, found):
    """Return numerator and denominator, for each image, of the box IoU and of the F1."""
    iou, f1 = [], []
    for true, pred in zip(truth[:, 0], found[:, 0], strict=True):
        overlaps = box_overlaps(boxes_of(true), boxes_of(pred))
        iou.append((overlaps.max(axis=1, initial=0).sum(), len(overlaps)))
        matched = linear_sum_assignment(overlaps >= 0.5, maximize=True)
        tp = np.count_nonzero(overlaps[matched] >= 0.5)
        f1.append((2 * tp, sum(overlaps.shape)))
    return {"box IoU": np.array(iou), "box F1": np.array(f1)}


def terms_of_masks(truth, instances, masks):
    """Return numerator and denominator, for each image, of each score."""
    terms = {}
    for name, score in OF_MASKS.items():
        scores = score(truth, masks, zero_division=np.nan)
        terms[name] = np.stack([np.nansum(scores, axis=1), (~np.isnan(scores)).sum(axis=1)], axis=1)
    found = instance_scores(instances, components(masks), per_image=True)
    terms["F1"] = np.stack([2 * found.tp, 2 * found.tp + found.fp + found.fn], axis=1)
    return terms


def terms_of(name, truth, instances, masks):
    if name in BOXES:
        return terms_of_boxes(instances, components(masks))
    return terms_of_masks(truth, components(truth) if instances is None else instances, masks)


def report(method, terms, seconds):
    """Print the scores of a method, and return them."""
    line, found = f"  {method:22}", {}
    for name, (above, below) in ((name, of_images.T) for name, of_images in terms.items()):
        found[name] = above.sum() / below.sum()
        low, high = bootstrap(
            (above, below),
            lambda n, d, axis: n.sum(axis=axis) / np.maximum(d.sum(axis=axis), 1),
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=2000,
            rng=0,
        ).confidence_interval
        line += f" {name} {found[name]:.3f} ({low:.3f} to {high:.3f})"
    print(f"{line}  {seconds:.3f} s", flush=True)
    return found


def ablations(classifier, images, labels, test):
    for name, (params, parts) in ABLATIONS.items():
        with ExitStack() as stack:
            for path, part in parts.items():
                stack.enter_context(patch(f"sklearn_micranet.{path}", part))
            yield name, *guided_masks(FrozenEstimator(classifier), images, labels, test, **params)


def scores_of(name, seed, options):
    """Return the scores of each method on a data set with one network."""
    images, labels, test, truth, instances, params = SETS[name](options.data)
    part = slice(options.n_test)
    test, truth = test[part], truth[part]
    instances = None if instances is None else instances[part]
    print(f"{name}, seed {seed}: {len(images)} images, {len(test)} scored", flush=True)
    classifier = network(name, images, labels, params, seed, options.cache)
    methods = list(masks_of_methods(classifier, images, labels, test))
    if options.ablate:
        methods += ablations(classifier, images, labels, test)
    found = {}
    for method, masks, seconds in methods:
        terms = terms_of(name, truth, instances, masks)
        found[method] = report(method, terms, seconds)
        if method == "guided" and options.worst:
            path = options.worst / f"outlines_{name}_{seed}.png"
            show_worst(path, test, truth, masks, next(iter(terms.values())))
    return found


def kept(path, compute):
    """Return what a file holds, or compute it and write the file."""
    if path and path.exists():
        return json.loads(path.read_text())
    value = compute()
    if path:
        path.write_text(json.dumps(value))
    return value


def main(options):
    behind = []
    for name in options.sets:
        for seed in options.seeds:
            kind = f"{'ablated' if options.ablate else 'scores'}_{options.n_test or 'all'}"
            path = options.cache and options.cache / f"{kind}_{name}_{seed}.json"
            scores = kept(path, lambda n=name, s=seed: scores_of(n, s, options))
            for score, guided in scores["guided"].items():
                best = max(scores[method][score] for method in ("paper", "Otsu"))
                print(f"{name}, seed {seed}: {score} best {best:.3f}, guided {guided:.3f}")
                if score in ("IoU", "box IoU", "box F1") and guided < best - 0.01:
                    behind.append(f"{name}, seed {seed}, {score}")
    print(f"Behind the best of the others: {behind or 'nowhere'}")
    return bool(behind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["digits", "textures", "fibres"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of the data sets that are not made here")
    parser.add_argument("--cache", type=Path, help="folder in which networks and scores are kept")
    parser.add_argument("--n-test", type=int, help="score so many images only")
    parser.add_argument("--ablate", action="store_true", help="leave out each ingredient in turn")
    parser.add_argument("--worst", type=Path, help="folder for pictures of the three worst images")
    sys.exit(main(parser.parse_args()))
