"""The skorch net around a network: how it is built, and what is left of it after a training."""

import torch
from skorch import NeuralNet
from skorch.helper import predefined_split

from ._batches import BatchIterator
from ._statistics import BatchStatistics

_OF_ONE_TRAINING = ("lr_schedule", "progress_bar", "early_stopping", "checkpoint")
_STATISTICS = "batch_statistics"


def build_net(
    module,
    criterion,
    *,
    lr,
    batch_size,
    device,
    callbacks=(),
    verbose=0,
    valid_data=None,
    negatives_per_positive=None,
    **iteration,
):
    """Return an initialised skorch net that trains with Adam.

    Parameters
    ----------
    module : (class, dict)
        The torch module, and its parameters.
    criterion : (class, dict)
        The loss of a batch, and its parameters.
    lr : float
    batch_size : int
    device : torch.device
    callbacks : list of skorch callbacks
    verbose : int
    valid_data : LabelledImages or None
        What is monitored after each epoch.
    negatives_per_positive, **iteration
        Parameters of the `BatchIterator` of the training batches.
    """
    iteration |= {
        "shuffle": True,
        "negatives_per_positive": negatives_per_positive,
        "device": device,
    }
    groups = {"module": module[1], "criterion": criterion[1], "iterator_train": iteration}
    parameters = {f"{of}__{k}": v for of, group in groups.items() for k, v in group.items()}
    return NeuralNet(
        module[0],
        criterion=criterion[0],
        optimizer=torch.optim.Adam,
        lr=lr,
        batch_size=batch_size,
        iterator_train=BatchIterator,
        iterator_valid=BatchIterator,
        train_split=None if valid_data is None else predefined_split(valid_data),
        # Last, so that the weights of the best epoch are back when it sees the end of a training.
        callbacks=[*callbacks, (_STATISTICS, BatchStatistics())],
        device=device,
        verbose=int(verbose),
        **parameters,
    ).initialize()


def finish_net(net, callbacks):
    """Forget what belongs to one training only, the validation images above all.

    Parameters
    ----------
    net : skorch.NeuralNet
    callbacks : list of skorch callbacks
        Those that stay, of the user.

    Raises
    ------
    ValueError
        If the training diverged.
    """
    net.train_split = None
    # From now on a training is one of `partial_fit`, whose epochs are too short for estimates.
    statistics = (_STATISTICS, BatchStatistics(n_steps=0))
    net.callbacks = [*callbacks, statistics]
    dropped = (*_OF_ONE_TRAINING, _STATISTICS)
    net.callbacks_ = [pair for pair in net.callbacks_ if pair[0] not in dropped] + [statistics]
    net.module_.eval()
    if not all(tensor.isfinite().all() for tensor in net.module_.state_dict().values()):
        raise ValueError(
            "Training diverged: the weights are not finite any more. Lower lr, or scale the "
            "images, for example to [0, 1]."
        )
