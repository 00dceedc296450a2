"""What the scripts of the paper's experiments share: their options, what is kept, and tables."""

import argparse
from pathlib import Path

import joblib
import numpy as np

from sklearn_micranet.metrics import (
    bootstrap_mean,
    compare_groups,
    dice_score,
    iou_score,
    symmetric_boundary_dice_score,
)

MASK_SCORES = {"F1": dice_score, "IoU": iou_score, "boundary Dice": symmetric_boundary_dice_score}
TRAINING = {"lr_schedule": "cosine", "early_stopping": False, "validation_fraction": 0}
N_SCORED = 50  # images at a time, whose masks are held in memory


def read_options(script, scales, argv, *, data_help, more=None):
    """Return the options of a script, what `scales` says of the chosen one, and what keeps results.

    The settings are all that results depend on, but for the options ``seeds`` and those of `more`.
    ``--seeds``, ``--epochs`` and ``--images`` replace what the scale says. `more` holds options of
    a script's own.
    """
    parser = argparse.ArgumentParser(description=script.split("\n\n")[0])
    parser.add_argument("--scale", choices=scales, default="small", help="default: small")
    parser.add_argument("--data", type=Path, help=data_help)
    parser.add_argument("--seeds", nargs="+", type=int, help="one network is trained for each")
    parser.add_argument("--epochs", type=int, help="of each training")
    parser.add_argument("--images", type=int, help="to train on, and at most as many to score")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("paper_cache"),
        help="folder in which trainings and scores are kept, so that a call that was interrupted "
        "goes on (default: %(default)s); remove it after a change of the code",
    )
    for name, how in (more or {}).items():
        parser.add_argument(name, **how)
    options = parser.parse_args(argv)
    settings = {"scale": options.scale, **scales[options.scale]}
    options.seeds = options.seeds or settings["seeds"]
    del settings["seeds"]
    settings["data"] = str(options.data) if options.data else None
    settings["checkpoints"] = str(options.cache / "trainings")
    if options.images:
        settings["images"] = options.images
    if options.epochs:
        settings.update({name: options.epochs for name in settings if "epochs" in name})
    return options, settings, joblib.Memory(options.cache, verbose=0)


def data_file(data, name):
    """Return the path of a file that may be passed itself, or the folder that holds it."""
    path = Path(data)
    return path / name if path.is_dir() else path


def score_masks(masks_of, images, truth):
    """Return the scores of each image and map, NaN where neither mask has a pixel.

    Parameters
    ----------
    masks_of : callable
        Maps images to masks.
    images : array-like of shape (n_samples, height, width)
    truth : array-like of shape (n_samples, n_maps, height, width), bool

    Returns
    -------
    scores : float ndarray of shape (3, n_samples, n_maps)
        In the order of `MASK_SCORES`.
    """
    parts = []
    for start in range(0, len(images), N_SCORED):
        part = slice(start, start + N_SCORED)
        true, found = np.asarray(truth[part]), np.asarray(masks_of(images[part]))
        parts.append([f(true, found, zero_division=np.nan) for f in MASK_SCORES.values()])
    return np.concatenate(parts, axis=1)


def seconds_of(estimator):
    """Return how long its training took, also if it was interrupted or is long finished."""
    return sum(estimator.history_[:, "dur"])


def interval(scores):
    """Return the mean over networks with its bootstrapped 95 % interval, as text."""
    if len(scores) < 2 or not np.isfinite(scores).all():
        return f"{np.nanmean(scores):.3f}" if np.isfinite(scores).any() else "-"
    mean, low, high = bootstrap_mean(scores, random_state=0)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def print_table(title, header, rows):
    """Print rows of text, ``{name: cells}``, below a header with a cell for each column."""
    lines = [["", *header], *([name, *cells] for name, cells in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for first, *cells in lines:
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        print("  ".join([f"  {first:{widths[0]}}", *padded]))


def print_comparison(title, groups):
    """Print the randomised F test of groups of networks, and then that of each pair."""
    if any(len(scores) < 2 for scores in groups.values()):
        print(f"\n{title}: tests need two seeds or more.")
        return
    comparison = compare_groups(groups, random_state=0)
    print(f"\n{title}: F = {comparison.f_statistic:.1f}, p = {comparison.pvalue:.4f}")
    pairs = {
        (a, b): f"{difference:+.3f} ({pvalue:.3f})"
        for a, b, difference, pvalue in zip(
            *(comparison.pairs[k] for k in ("group_a", "group_b", "difference", "pvalue")),
            strict=True,
        )
    }
    names = list(groups)
    rows = {a: [pairs.get((a, b), "") for b in names[1:]] for a in names[:-1]}
    print_table("  difference (p) of the row's mean minus the column's", names[1:], rows)
    n_scores = len(next(iter(groups.values())))
    if n_scores < 4:
        print(f"  ({n_scores} against {n_scores} networks cannot have a p below 0.1)")
