"""Callbacks that tests look at after a training."""

from skorch.callbacks import Callback


class Watched(Callback):
    """A callback that is itself part of the training, not a copy of it."""

    def __copy__(self):
        return self
