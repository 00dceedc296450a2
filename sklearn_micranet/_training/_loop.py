"""What the training of the network needs besides skorch's loop."""

from contextlib import contextmanager, suppress
from math import cos, pi
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state
from skorch.callbacks import EarlyStopping, LRScheduler, ProgressBar
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from ._allocation import freed_memory_kept
from ._batches import n_negatives

WARM_UP_SHARE = 0.1  # of all steps


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


def training_callbacks(classifier, n_batches, monitor):
    """Return the skorch callbacks of the schedule, of early stopping and of the progress bar.

    Parameters
    ----------
    classifier : MicraNetClassifier
        Its parameters are read.
    n_batches : int
        Training batches per epoch.
    monitor : {"valid_loss", "train_loss"}
    """
    callbacks = []
    if classifier.lr_schedule == "plateau":
        schedule = LRScheduler(
            ReduceLROnPlateau,
            monitor=monitor,
            factor=0.1,
            patience=classifier.patience,
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
    # Last: what is behind it misses the end of the last epoch.
    if classifier.early_stopping:
        stopping = EarlyStopping(
            monitor=monitor, patience=classifier.n_iter_no_change, load_best=True
        )
        callbacks.append(("early_stopping", stopping))
    return callbacks


def split_off_validation(indicator, fraction, random_state):
    """Set aside a share of the samples of every class.

    Classes are served rarest first (iterative stratification [1]_): of the samples of a class
    that are not given to either part yet, as many are drawn as its share still lacks. What is
    rounded off is carried over to the next class, and one sample of each class is left for
    training.

    Parameters
    ----------
    indicator : ndarray of bool of shape (n_samples, n_classes)
        Classes that a sample contains.
    fraction : float in [0, 1)
    random_state : RandomState instance

    Returns
    -------
    train, valid : ndarrays of int
        Indices in ascending order. `valid` is empty if the fraction amounts to less than one
        sample or leaves fewer than two for training, and where every sample is needed there.

    References
    ----------
    .. [1] Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011.
       :doi:`10.1007/978-3-642-23808-6_10`
    """
    n_samples = len(indicator)
    n_valid = round(fraction * n_samples)
    if n_valid < 1 or n_samples - n_valid < 2:
        return np.arange(n_samples), np.arange(0)
    is_free = np.ones(n_samples, dtype=bool)
    is_valid = np.zeros(n_samples, dtype=bool)
    carried = 0.0
    for k in np.argsort(indicator.sum(axis=0), kind="stable"):
        members = np.flatnonzero(indicator[:, k] & is_free)
        n_train = (indicator[:, k] & ~is_valid).sum()
        lacking = fraction * indicator[:, k].sum() - is_valid[indicator[:, k]].sum() + carried
        n_drawn = max(0, min(round(lacking), len(members), n_train - 1))
        carried = float(np.clip(lacking - n_drawn, -0.5, 0.5))
        is_valid[random_state.permutation(members)[:n_drawn]] = True
        is_free[members] = False
    lacking = n_valid - is_valid.sum()
    is_valid[random_state.permutation(np.flatnonzero(is_free))[: max(0, lacking)]] = True
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)


def draw_negatives(is_positive, negatives_per_positive, random_state):
    """Return the positions of the positive images, and of so many negative ones for each."""
    n_drawn = n_negatives(is_positive, negatives_per_positive)
    drawn = random_state.permutation(np.flatnonzero(~is_positive))[:n_drawn]
    return np.sort(np.concatenate([np.flatnonzero(is_positive), drawn]))


def draw_seed(random_state):
    """Return the seed that `random_state` is or, if it is not an int, draw one from it."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def run_epochs(net, dataset, n_epochs, checkpoint=None):
    """Run skorch's loop. Unlike `NeuralNet.partial_fit` it lets Ctrl-C through, after tidying up.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialised.
    dataset : LabelledImages
    n_epochs : int
    checkpoint : Checkpoint, default=None
        One of the callbacks of the net. The loop goes on from its state, if it has one.
    """
    if checkpoint is not None and checkpoint.state is not None:
        checkpoint.restore_net(net)
        n_epochs -= len(net.history)
        if checkpoint.state["is_finished"]:
            return
    net.notify("on_train_begin", X=dataset, y=None)
    interruption = None
    try:
        with freed_memory_kept():
            net.fit_loop(dataset, epochs=n_epochs)
    except KeyboardInterrupt as error:
        behind = _behind_early_stopping(net)
        if behind is None:
            interruption = error
            _take_back_epoch(net)
        else:
            _, valid_dataset = net.get_split_datasets(dataset)
            for callback in behind:
                with suppress(KeyboardInterrupt):  # another early stopping
                    callback.on_epoch_end(net, dataset_train=dataset, dataset_valid=valid_dataset)
    if net.history:
        net.notify("on_train_end", X=dataset, y=None)
    if interruption is not None:
        raise interruption
    if checkpoint is not None:
        checkpoint.finish(net)


def _behind_early_stopping(net):
    """Return the callbacks that missed the end of the epoch because early stopping came first.

    skorch's early stopping ends the loop with a KeyboardInterrupt. None if that was not the one.
    """
    callbacks = [callback for _, callback in net.callbacks_]
    for i, callback in enumerate(callbacks):
        if isinstance(callback, EarlyStopping) and callback.misses_ == callback.patience:
            return callbacks[i + 1 :]
    return None


def _take_back_epoch(net):
    """Return to whole epochs, and to the weights of the best one if they are kept."""
    net.history.pop()
    for _, callback in net.callbacks_:
        # At the end of training they are loaded only if a whole epoch came after the best.
        if isinstance(callback, EarlyStopping) and callback.best_model_weights_ is not None:
            net.module_.load_state_dict(callback.best_model_weights_)
        elif isinstance(callback, ProgressBar) and hasattr(callback, "pbar_"):
            callback.pbar_.close()


@contextmanager
def seeded(random_state, device, n_threads=None):
    """Seed torch from a RandomState, and leave its global generators as they were.

    Parameters
    ----------
    random_state : RandomState instance
    device : torch.device
    n_threads : int, default=None
        Number of CPU threads for as long; None leaves it as it is.
    """
    devices = [device] if device.type == "cuda" else []
    n_threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices):
        seed = random_state.randint(2**31)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        torch.set_num_threads(n_threads or n_threads_before)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads_before)


def resolve_device(device):
    """Return the torch.device that "auto" or a device name stands for."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
