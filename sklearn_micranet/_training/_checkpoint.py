"""Checkpoints: a training that was killed goes on from its last whole epoch."""

import json
import warnings

import numpy as np
import skorch
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler, PassthroughScoring
from skorch.history import History

from sklearn_micranet import __version__
from sklearn_micranet._network._weights import read_tensors, write_tensors
from sklearn_micranet._stack._files import remove_stale_parts
from sklearn_micranet._stack._keys import key_of, key_of_array, parts_of
from sklearn_micranet._stack._sources import take

N_READ_AT_ONCE = 64  # images
_VERSIONS = (__version__, torch.__version__, skorch.__version__, np.__version__)
_WITHOUT_INFLUENCE = (
    "pretrained",  # the weights themselves count
    "random_state",  # likewise the seed
    "threshold",
    "device",
    "checkpoint_dir",
    "verbose",
)
_STATES = {
    EarlyStopping: ("misses_", "dynamic_threshold_", "best_model_weights_", "best_epoch_"),
    PassthroughScoring: ("best_score_",),  # the history says which epochs were the best so far
}


def training_key(parameters, augment, initial, seed, *data):
    """Return a key of everything that decides what a training ends with.

    That is the versions of this package, torch, skorch and NumPy; the parameters but those without
    influence; the weights to start from; the seed; all images, labels and weights; and of the
    augmentation and the callbacks all that :func:`key_of` takes of functions, classes and objects.

    Parameters
    ----------
    parameters : dict
        Of the classifier.
    augment : Augmenter or None
        What `parameters` says of the augmentation, resolved.
    initial : dict of Tensor or None
        Weights to start from.
    seed : int or None
    *data : LabelledImages or None

    Raises
    ------
    TypeError
        If the augmentation or the callbacks hold something that cannot be taken apart.
    """
    counting = {k: v for k, v in parameters.items() if k not in _WITHOUT_INFLUENCE}
    counting["augmentation"] = augment and augment.functions
    counting["callbacks"] = list(parameters["callbacks"] or ())
    keys = {name: _key_of_parameter(name, value) for name, value in counting.items()}
    return key_of(_VERSIONS, keys, initial and dict(initial), seed, list(map(_key_of_data, data)))


def _key_of_parameter(name, value):
    try:
        return key_of(value)
    except (AttributeError, RecursionError, TypeError) as error:
        raise TypeError(
            f"{name} must hold functions, classes and objects of plain values and arrays where "
            f"checkpoint_dir is given, since a training is found by it. Got {value!r:.100} "
            "instead: let get_params of a callback leave out what does not change the training, "
            f"such as a log. ({error!s:.200})"
        ) from error


def _key_of_data(data):
    if data is None:
        return None
    starts = range(0, len(data.images), N_READ_AT_ONCE)  # memory grows with so many images
    parts = [np.arange(i, min(i + N_READ_AT_ONCE, len(data.images))) for i in starts]
    images = [key_of_array(take(data.images, part)) for part in parts]
    return key_of(images, data.indices, data.targets, data.weights)


@parts_of.register(torch.Tensor)
def _parts_of_tensor(tensor):
    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return str(tensor.dtype), tuple(tensor.shape), values


@parts_of.register(Callback)
def _parts_of_callback(callback):
    return callback.get_params(deep=False)


@parts_of.register(torch.nn.Module)
def _parts_of_module(module):
    """Return tensors and settings, without what a module may remember of its last batch."""
    return {name: value for name, value in vars(module).items() if _is_setting(name, value)}


def _is_setting(name, value):
    if name.startswith("_") and not isinstance(value, bool | int | float | str | tuple):
        return name in ("_parameters", "_buffers", "_modules")
    return not isinstance(value, torch.device | torch.dtype)


class Checkpoint(Callback):
    """Write the state of a training after each epoch, and resume from it.

    It must come after the callbacks whose state it saves and restores.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    seed : int
        What the training is seeded with.
    is_reproducible : bool
        Whether the same call would end with the same weights. If not, a finished training is not
        kept: the next call is to train anew.

    Attributes
    ----------
    state : dict or None
        What the file held; its seed then takes the place of the other.
    """

    def __init__(self, path, seed, is_reproducible=True):
        self.path = path
        self.is_reproducible = is_reproducible
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(path)
        self.state = None
        if path.exists():
            try:
                self.state = read_tensors(path)
            except ValueError:
                warnings.warn(
                    f"The checkpoint {path} is damaged: the training starts anew.",
                    RuntimeWarning,
                    stacklevel=5,
                )
        self.seed = seed if self.state is None else self.state["seed"]

    def restore_net(self, net):
        """Give a net the saved history, weights and optimiser, before its callbacks begin."""
        net.history = History(json.loads(self.state["history"]))
        net.module_.load_state_dict(self.state["module"])
        net.optimizer_.load_state_dict(self.state["optimizer"])

    def on_train_begin(self, net, **kwargs):
        """Restore the state of the callbacks, which have begun, and of the random numbers."""
        if self.state is None:
            return
        state, self.state = self.state, None
        for name, callback in net.callbacks_:
            saved = state["callbacks"].get(name)
            if isinstance(callback, LRScheduler) and saved:
                callback.lr_scheduler_.load_state_dict(saved)
            elif saved:
                vars(callback).update(saved)
        net.optimizer_.load_state_dict(state["optimizer"])  # a schedule has set its first rate
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and torch.device(net.device).type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], net.device)

    def on_epoch_begin(self, net, **kwargs):
        # The row of the epoch that begins is there already. Before the first there is nothing.
        if len(net.history) > 1:
            self._write(net, list(net.history)[:-1], is_finished=False)

    def finish(self, net):
        """Keep the final state, that a later training with the same inputs returns at once."""
        if self.is_reproducible:
            self._write(net, net.history, is_finished=True)
        else:
            self.path.unlink(missing_ok=True)
        remove_stale_parts(self.path)

    def _write(self, net, history, is_finished):
        on_cuda = torch.device(net.device).type == "cuda"
        write_tensors(
            self.path,
            {
                "seed": self.seed,
                "is_finished": is_finished,
                "module": net.module_.state_dict(),
                "optimizer": net.optimizer_.state_dict(),
                "callbacks": {name: _state(callback) for name, callback in net.callbacks_},
                "history": json.dumps(_without_batches(history), default=_to_json),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(net.device) if on_cuda else None,
            },
        )


def _state(callback):
    if isinstance(callback, LRScheduler):
        return callback.lr_scheduler_.state_dict()
    names = next((names for kind, names in _STATES.items() if isinstance(callback, kind)), ())
    return {name: _plain(getattr(callback, name)) for name in names}


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _to_json(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _without_batches(history):
    return [{**row, "batches": []} for row in history]
