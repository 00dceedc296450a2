"""What networks see in an image, and the maps that follow from it with what was learned."""

from functools import cached_property

import numpy as np
import torch

from sklearn_micranet import __version__
from sklearn_micranet._network._input import to_tensor
from sklearn_micranet._network._local_maps import FoldedNetwork, logits_and_activations
from sklearn_micranet._stack._keys import key_of, key_of_array
from sklearn_micranet._stack._sources import take

from ._gate import Reading
from ._recipe import guided_maps

_LAYERS = (1, 3, 5)  # L2, L4 and L6: pixels of 1, 2 and 4 px
_LAST = 7  # L8
_MAX_LOSS = 0.02  # of label accuracy

UPRIGHT, TURNED, BOTH = (False,), (True,), (False, True)


class Reader:
    """Read images with networks; what several see is averaged.

    Parameters
    ----------
    explained : Explained
        Of the classifier: its networks, targets, threshold and image shape.
    turns : tuple of bool, default=(False,)
        The readings to average: of the image as it is (False), and of its half turn (True).
    """

    def __init__(self, explained, turns=UPRIGHT):
        self.explained = explained
        self.turns = turns

    def turned(self, turns):
        """Return a reader with the same networks that averages other readings."""
        return Reader(self.explained, turns)

    @cached_property
    def folded(self):
        return [FoldedNetwork(weights) for weights in self.explained.networks]

    @cached_property
    def key(self):
        """Key of all that a reading depends on besides the image."""
        explained = self.explained
        networks = [
            key_of_array(tensor.numpy(force=True))
            for weights in explained.networks
            for tensor in weights.values()
        ]
        threshold = np.asarray(explained.threshold, dtype=float)
        targets = explained.targets
        settings = [targets.kind, targets.map_outputs, threshold, explained.image_shape]
        return key_of(__version__, networks, settings, self.turns)

    def __getstate__(self):
        return {k: v for k, v in vars(self).items() if k != "folded"}

    def as_image(self, image):
        """Return one image as float32 of shape (height, width, n_channels)."""
        image = np.asarray(image, dtype=np.float32)
        if image.ndim == 1:
            image = image.reshape(self.explained.image_shape)
        return image if image.ndim == 3 else image[..., np.newaxis]

    def __call__(self, image, *, with_layers=True):
        """Return the reading of one image, of the classes that have maps.

        Without layers its `activations` are empty: where brightness says all, nobody needs them.

        One image at a time: a CPU is fastest when the activations of what it works on fit its
        cache, and on a GPU what follows takes longer.
        """
        targets, layers = self.explained.targets, _LAYERS if with_layers else ()
        # For each network, a run for each turn. Maps cover the padding, too: they are cut when
        # they are enlarged to the image.
        runs = [self._runs(folded, self.as_image(image), layers) for folded in self.folded]
        logits = targets.mean_logits([of_one[0][0].cpu().numpy() for of_one in runs])
        scores = _mean(
            torch.einsum("ck,khw->chw", folded.linear[0], activations[_LAST])
            for folded, of_one in zip(self.folded, runs, strict=True)
            for _, activations in of_one
        )
        if targets.kind == "multiclass":  # what speaks for all classes speaks for none
            scores = scores - scores.mean(dim=0)
        kept = [
            torch.cat([_mean(activations[layer] for _, activations in of_one) for of_one in runs])
            for layer in layers
        ]
        outputs = targets.map_outputs
        return Reading(
            scores.cpu().numpy()[outputs],
            targets.present(logits, self.explained.threshold)[0, outputs],
            [layer.cpu().numpy() for layer in kept],
        )

    def _runs(self, folded, image, layers):
        """Return logits and activations of each turn, these turned back."""
        tensor = to_tensor(image[np.newaxis]).to(folded.linear[0].device)
        runs = []
        for turn in self.turns:
            logits, activations = logits_and_activations(
                folded, tensor.flip(2, 3) if turn else tensor, {*layers, _LAST}
            )
            # Contiguous, as pixels of one filter are what is smoothed and enlarged.
            one = {
                i: (a[0].flip(1, 2) if turn else a[0]).contiguous() for i, a in activations.items()
            }
            runs.append((logits, one))
        return runs


def _mean(tensors):
    tensors = list(tensors)
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(dim=0)


def survives_half_turn(reader, images, present):
    """Whether labels are predicted about as well from images that are turned by half a turn.

    Parameters
    ----------
    reader : Reader
    images : sequence of images
    present : bool ndarray of shape (n_samples, n_maps), or None
        Labels. ``None`` stands for what is predicted from the images as they are.
    """
    readers = reader, reader.turned(TURNED)
    found = np.array(
        [[read(image, with_layers=False).present for read in readers] for image in images]
    )
    upright, turned = found.swapaxes(0, 1)
    truth = upright if present is None else present
    return bool(np.mean(turned == truth) >= np.mean(upright == truth) - _MAX_LOSS)


def one_by_one(stack, rows, batch_size):
    """Yield some samples of a stack, of which `batch_size` are read at a time."""
    for start in range(0, len(rows), batch_size):
        yield from take(stack, rows[start : start + batch_size])


class Guide:
    """Compute the guided maps of a batch.

    Parameters
    ----------
    reader : Reader
    recipe : Recipe
    level : float
        As in :class:`GuidedFeatureMap`.
    """

    def __init__(self, reader, recipe, level):
        self.reader = reader
        self.recipe = recipe
        self.level = level

    @cached_property
    def key(self):
        """Key of all that the maps depend on besides the image."""
        return key_of(self.reader.key, self.recipe, self.level)

    def __call__(self, batch):
        return [self._maps(image) for image in batch]

    def _maps(self, image):
        image = self.reader.as_image(image)
        reading = self.reader(image, with_layers=self.recipe.pixels is not None)
        return guided_maps(image, reading, self.recipe, level=self.level)
