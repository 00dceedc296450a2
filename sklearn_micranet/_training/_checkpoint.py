"""Checkpoints: a training that was killed goes on from its last whole epoch."""

import json
import warnings
from pickle import PicklingError

import joblib
import numpy as np
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler, PassthroughScoring
from skorch.history import History

from sklearn_micranet._network._weights import read_tensors, remove_stale_parts, write_atomically
from sklearn_micranet._stack._hash import Hasher
from sklearn_micranet._stack._lazy_stack import take

N_HASHED_AT_ONCE = 64  # images
_STATES = {
    EarlyStopping: ("misses_", "dynamic_threshold_", "best_model_weights_", "best_epoch_"),
    PassthroughScoring: ("best_score_",),  # the history says which epochs were the best so far
}


def fingerprint(images):
    """Return a hash of all images; memory grows with a few of them."""
    hashes = [
        joblib.hash(np.ascontiguousarray(take(images, np.arange(i, min(i + N_HASHED_AT_ONCE, n)))))
        for n in [len(images)]
        for i in range(0, n, N_HASHED_AT_ONCE)
    ]
    return joblib.hash([images.shape, hashes])


def training_key(classifier, initial, seed, *data):
    """Return a hash of everything that decides what a training ends with.

    Parameters
    ----------
    classifier : MicraNetClassifier
    initial : dict of Tensor or None
        Weights to start from.
    seed : int or None
    *data : LabelledImages or None
    """
    parameters = classifier.get_params(deep=False)
    for name in ("pretrained", "random_state", *_WITHOUT_INFLUENCE):
        del parameters[name]
    parameters["callbacks"] = list(parameters["callbacks"] or ())
    hashes = {name: _hash_of_parameter(name, value) for name, value in parameters.items()}
    content = [
        None
        if part is None
        else [fingerprint(part.images), part.indices, part.targets, part.weights]
        for part in data
    ]
    return _Hasher().hash([_VERSION, hashes, initial and dict(initial), seed, content])


_VERSION = 1  # to be raised when the same inputs train another network
_WITHOUT_INFLUENCE = ("threshold", "device", "checkpoint_dir", "verbose")


def _hash_of_parameter(name, value):
    try:
        return _Hasher().hash(value)
    except (PicklingError, AttributeError, TypeError, RecursionError) as error:
        raise TypeError(
            f"{name} must be picklable where checkpoint_dir is given, since a training is found by "
            f"it. Got {value!r:.100} instead: define a function with def, outside of any other, "
            "and let get_params of a callback leave out what does not change the training, such "
            f"as a log. ({error.args[0]!s:.200})"
        ) from error


class _Hasher(Hasher):
    """Hash tensors by their values, and what training leaves unchanged of modules and callbacks.

    That is their parameters: of a callback those of `get_params`, without what ends in an
    underscore; of a module its tensors and attributes. Its last batch, which a module may remember,
    does not count: private attributes other than plain values, device and dtype.
    """

    def save(self, obj):
        if isinstance(obj, torch.Tensor):
            values = obj.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            obj = (str(obj.dtype), tuple(obj.shape), values)
        super().save(obj)

    def reducer_override(self, obj):
        """Return the class, its arguments and the state of an object, as its ``__reduce__``."""
        if isinstance(obj, Callback):
            return type(obj), (), obj.get_params(deep=False)
        if isinstance(obj, torch.nn.Module):
            return type(obj), (), {k: v for k, v in vars(obj).items() if _is_setting(k, v)}
        return NotImplemented


def _is_setting(name, value):
    """Whether an attribute of a module is no trace of its last batch."""
    if name.startswith("_") and not isinstance(value, bool | int | float | str | tuple):
        return name in ("_parameters", "_buffers", "_modules")
    return not isinstance(value, torch.device | torch.dtype)


class Checkpoint(Callback):
    """Write the state of a training after each epoch, and resume from it.

    It must be behind the callbacks whose state it saves and restores.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    seed : int
        What the training is seeded with.

    Attributes
    ----------
    state : dict or None
        What the file held; its seed then takes the place of the other.
    """

    def __init__(self, path, seed):
        self.path = path
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
                    stacklevel=4,
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
        """Write the final state, that a later training with the same inputs returns at once."""
        self._write(net, net.history, is_finished=True)
        remove_stale_parts(self.path)

    def _write(self, net, history, is_finished):
        on_cuda = torch.device(net.device).type == "cuda"
        write_atomically(
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
