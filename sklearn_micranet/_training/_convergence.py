"""Whether a training has led anywhere."""

import torch
from sklearn.exceptions import ConvergenceWarning

from sklearn_micranet._stack._warnings import warn_user

_HARDLY_BETTER = 0.95  # of the loss of the class frequencies


def frequency_loss(net, data, monitored):
    """Return the loss of predicting for every image how frequent each class is.

    Parameters
    ----------
    net : skorch.NeuralNet
        Its criterion, a `WeightedLoss`, weighs the frequencies, too.
    data : LabelledImages
        Whose classes are counted.
    monitored : LabelledImages
        Whose images are predicted.
    """
    criterion = net.criterion_
    targets = data.targets.to(criterion.weights.device)
    weights = 1.0 if data.weights is None else data.weights.to(targets.device)
    if criterion.exclusive:
        counts = torch.stack(
            [(weights * (targets == k)).sum() for k in range(len(criterion.weights))]
        )
        logits = torch.log((counts * criterion.weights).clamp(min=1e-6))
    else:
        weights = torch.as_tensor(weights, device=targets.device).reshape(-1, 1)
        absent, present = criterion.weights
        logits = torch.log((present * (weights * targets).sum(0)).clamp(min=1e-6)) - torch.log(
            (absent * (weights * (1 - targets)).sum(0)).clamp(min=1e-6)
        )
    y = monitored.targets.to(targets.device)
    y = y if monitored.weights is None else [y, monitored.weights.to(targets.device)]
    return float(criterion(logits.expand(len(monitored), -1), y))


def warn_if_nothing_is_learned(net, data, valid_data):
    """Warn with a ConvergenceWarning if what was kept predicts hardly better than frequencies.

    Parameters
    ----------
    net : skorch.NeuralNet
        After the training.
    data, valid_data : LabelledImages
        What it was trained on and monitored by; None if it was monitored by the training loss.
    """
    if not net.history:  # a callback has ended the training before its first epoch
        return
    name = "train_loss" if valid_data is None else "valid_loss"
    loss = min(net.history[:, name])
    baseline = frequency_loss(net, data, data if valid_data is None else valid_data)
    if loss > _HARDLY_BETTER * baseline:
        warn_user(
            "The network predicts hardly better than the frequencies of the classes: its "
            f"{name} is {loss:.3g}, theirs {baseline:.3g}. Train for longer (max_epochs), see in "
            "the history whether the rate is too high or too low (lr), scale the images "
            "(IntensityScaler), and check that labels belong to their images. With few images, set "
            "validation_fraction=0.",
            ConvergenceWarning,
        )
