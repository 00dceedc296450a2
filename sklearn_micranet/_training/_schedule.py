"""Learning rates, early stopping and the progress bar, as skorch callbacks."""

from math import ceil, cos, pi

from skorch.callbacks import EarlyStopping, LRScheduler, ProgressBar
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from ._cost import TrainingCost

WARM_UP_SHARE = 0.1  # of all steps
STEPS_OF_AN_EPOCH = 10  # at least, for an epoch to count as one in what waits for improvement


class WarmupCosine:
    """Factor of the learning rate: linear rise over the first tenth, then half a cosine.

    Parameters
    ----------
    n_steps : int
        Number of steps of the whole training.
    floor : float
        Last factor.
    """

    def __init__(self, n_steps, floor):
        self.n_steps = n_steps
        self.floor = floor

    def __call__(self, step):
        n_rising = max(1, round(WARM_UP_SHARE * self.n_steps))
        if step < n_rising:
            return (step + 1) / n_rising
        progress = min(1.0, (step - n_rising) / max(1, self.n_steps - n_rising))
        return self.floor + (1 - self.floor) * (1 + cos(pi * progress)) / 2


class TrainingBar(ProgressBar):
    """Progress bar of the training batches; skorch's counts validation batches, too."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            super().on_batch_end(net, **kwargs)


def patience_in_epochs(patience, n_batches):
    """Return how many epochs a patience is: epochs of few steps count in proportion to ten."""
    return ceil(patience * max(1, STEPS_OF_AN_EPOCH / n_batches))


def training_callbacks(classifier, n_batches, monitor):
    """Return the skorch callbacks of the cost, the schedule, the progress bar and early stopping.

    Parameters
    ----------
    classifier : MicraNetClassifier
        Its parameters are read.
    n_batches : int
        Training batches per epoch.
    monitor : {"valid_loss", "train_loss"}
    """
    callbacks = [("cost", TrainingCost(classifier.max_epochs, n_batches))]
    if classifier.lr_schedule == "plateau":
        schedule = LRScheduler(
            ReduceLROnPlateau,
            monitor=monitor,
            factor=0.1,
            patience=patience_in_epochs(classifier.patience, n_batches),
            min_lr=classifier.min_lr,
        )
        callbacks.append(("lr_schedule", schedule))
    elif classifier.lr_schedule == "cosine":
        factor = WarmupCosine(
            classifier.max_epochs * n_batches, min(1.0, classifier.min_lr / classifier.lr)
        )
        schedule = LRScheduler(LambdaLR, lr_lambda=factor, step_every="batch")
        callbacks.append(("lr_schedule", schedule))
    if classifier.verbose:
        callbacks.append(("progress_bar", TrainingBar(batches_per_epoch=n_batches)))
    # Last: callbacks after it miss the end of the last epoch.
    if classifier.early_stopping:
        stopping = EarlyStopping(
            monitor=monitor,
            patience=patience_in_epochs(classifier.n_iter_no_change, n_batches),
            load_best=True,
        )
        callbacks.append(("early_stopping", stopping))
    return callbacks
