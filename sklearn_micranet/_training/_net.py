"""The skorch net around a network: how it is built, and what is left of it after a training."""

from copy import copy

import torch
from sklearn.base import ClassifierMixin
from skorch import NeuralNet
from skorch.helper import predefined_split

from ._batches import BatchIterator
from ._statistics import BatchStatistics

_OF_ONE_TRAINING = ("cost", "lr_schedule", "progress_bar", "early_stopping", "checkpoint")
_STATISTICS = "batch_statistics"


class LabellingNet(ClassifierMixin, NeuralNet):
    """A net whose predictions are what its targets are, as skorch's scoring callbacks compare them.

    Parameters
    ----------
    *args, targets, threshold, **parameters
        `targets` is a `Targets`; `threshold` is the probability from which an output is present.
        Others are those of :class:`skorch.NeuralNet`.
    """

    def __init__(self, *args, targets=None, threshold=0.5, **parameters):
        super().__init__(*args, **parameters)
        self.targets = targets
        self.threshold = threshold

    @property
    def classes_(self):
        return self.targets.encoded.scorer_classes

    def predict_proba(self, X):
        return self.targets.encoded.probabilities(self._logits(X))

    def predict(self, X):
        encoded = self.targets.encoded
        return encoded.decode(encoded.present(self._logits(X), self.threshold))

    def notify(self, method_name, **parameters):
        """Call all callbacks, which know nothing of the weights of the images."""
        images, y = parameters.get("batch", (None, None))
        if isinstance(y, list):
            parameters["batch"] = images, y[0]
        super().notify(method_name, **parameters)

    def _logits(self, X):
        return self.forward(X, device="cpu").detach().numpy()


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
    labelling=None,
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
    labelling : dict, default=None
        `targets` and `threshold` of a net that predicts labels.
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
    net = NeuralNet if labelling is None else LabellingNet
    return net(
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
        **(labelling or {}),
        **parameters,
    ).initialize()


def own_copies(callbacks):
    """Return copies of the callbacks of the user, whose attributes a training sets.

    They are shallow: a list in which a callback collects what it sees, a connection or an open
    file is that of the user.

    Parameters
    ----------
    callbacks : list or tuple of callbacks, or of pairs of a name and a callback; or None
    """
    return [
        (entry[0], copy(entry[1])) if isinstance(entry, tuple) else copy(entry)
        for entry in callbacks or ()
    ]


def finish_net(net):
    """Forget what belongs to one training only, the validation images above all.

    Parameters
    ----------
    net : skorch.NeuralNet

    Raises
    ------
    ValueError
        If the training diverged.
    """
    net.train_split = None
    # From now on a training is one of `partial_fit`, whose epochs are too short for estimates.
    statistics = (_STATISTICS, BatchStatistics(n_steps=0))
    dropped = (*_OF_ONE_TRAINING, _STATISTICS)
    stay = [c for c in net.callbacks if not (isinstance(c, tuple) and c[0] in dropped)]
    net.callbacks = [*stay, statistics]
    net.callbacks_ = [pair for pair in net.callbacks_ if pair[0] not in dropped] + [statistics]
    net.module_.eval()
    if not all(tensor.isfinite().all() for tensor in net.module_.state_dict().values()):
        raise ValueError(
            "Training diverged: the weights are not finite any more. Lower lr, or scale the "
            "images, for example to [0, 1]."
        )
