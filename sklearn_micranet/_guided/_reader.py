"""What networks see in an image, and the maps that follow from it with what was learned."""

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from sklearn_micranet import __version__
from sklearn_micranet._network._input import to_tensor
from sklearn_micranet._network._local_maps import FoldedNetwork
from sklearn_micranet._network._local_maps import layers as activations_of
from sklearn_micranet._network._shape import STRIDE
from sklearn_micranet._network._tiles import max_pixels, tiles_of
from sklearn_micranet._stack._keys import key_of, key_of_array
from sklearn_micranet._stack._sources import take

from ._gate import Part, Reading
from ._recipe import guided_maps

_LAYERS = (1, 3, 5)  # L2, L4 and L6: pixels of 1, 2 and 4 px
_VALUES = 16  # for each pixel and filter of the first depth, with the features of the pixels
_VALUES_OF_PIXEL, _VALUES_OF_CLASS = 80, 5  # what the classifier of pixels takes for each pixel
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

    @torch.no_grad()
    def __call__(self, image, *, with_layers=True):
        """Return the reading of one image, of the classes that have maps.

        Without layers there are no parts: where brightness says all, nobody needs them.

        One image at a time: a CPU is fastest when the activations of what it works on fit its
        cache, and on a GPU what follows takes longer.
        """
        targets, image = self.explained.targets, self.as_image(image)
        tiles = tiles_of(image.shape[:2], self._n_pixels())
        if len(tiles) == 1:
            seen = self._see(image, tiles[0], keeps_layers=with_layers)
            parts = [Part(tiles[0], seen.layers)]
        else:
            seen = self._scan(image, tiles)
            parts = _Parts(self, image, tiles)
        parts = parts if with_layers else []
        logits = targets.mean_logits(
            [
                F.linear(features, *folded.linear).cpu().numpy()
                for folded, features in zip(self.folded, seen.features, strict=True)
            ]
        )
        scores = seen.scores
        if targets.kind == "multiclass":  # what speaks for all classes speaks for none
            scores = scores - scores.mean(dim=0)
        outputs = targets.map_outputs
        present = targets.present(logits, self.explained.threshold)[0, outputs]
        return Reading(scores.cpu().numpy()[outputs], present, parts)

    def _n_pixels(self):
        """Return how many pixels of an image are read at a time."""
        weight = self.folded[0].convolutions[0].weight
        n_values = _VALUES_OF_PIXEL + _VALUES_OF_CLASS * len(self.explained.targets.map_outputs)
        n_values = max(n_values, _VALUES * len(weight) * len(self.folded))
        return max_pixels(n_values, weight.element_size())

    @torch.no_grad()
    def _see(self, image, tile, keeps_layers=True):
        """Return what the networks see in a tile of an image."""
        tensor = to_tensor(image[tile.read][np.newaxis])
        scores, features, layers = [], [], []
        for folded in self.folded:
            of_turns = []
            for turn in self.turns:
                x = tensor.to(folded.linear[0].device)
                kept, last = {}, None
                for i, last in enumerate(activations_of(folded, x.flip(2, 3) if turn else x)):
                    if keeps_layers and i in _LAYERS:
                        # Contiguous, as pixels of one filter are smoothed and enlarged.
                        kept[i] = _turned_back(last, turn)[0].contiguous()
                of_turns.append(list(kept.values()))
                # Maps cover the padding, too: they are cut when they are enlarged to the image.
                last = _turned_back(last, turn)[..., *tile.within(STRIDE)]
                if turn == self.turns[0]:
                    features.append(last.flatten(2).amax(dim=2))
                scores.append(torch.einsum("ck,khw->chw", folded.linear[0], last[0]))
            layers.append([_mean(of_layer) for of_layer in zip(*of_turns, strict=True)])
        layers = [torch.cat(of_layer).cpu().numpy() for of_layer in zip(*layers, strict=True)]
        return _Seen(_mean(scores), features, layers)

    def _scan(self, image, tiles):
        """Return what the networks see in a large image, without layers."""
        scores, features = None, None
        for tile in tiles:
            seen = self._see(image, tile, keeps_layers=False)
            if scores is None:
                n_cells = [-(-n // STRIDE) for n in image.shape[:2]]
                scores, features = seen.scores.new_empty(len(seen.scores), *n_cells), seen.features
            top, left = (s.start // STRIDE for s in tile.inside)
            height, width = seen.scores.shape[1:]
            scores[:, top : top + height, left : left + width] = seen.scores
            features = [torch.maximum(*pair) for pair in zip(features, seen.features, strict=True)]
        return _Seen(scores, features, [])


class _Seen(NamedTuple):
    """What networks see in a tile, or in an image."""

    scores: torch.Tensor  # (n_outputs, height / 8, width / 8), the mean of all
    features: list  # of each network, (1, n_filters)
    layers: list  # activations at three resolutions, those of the networks one after another


class _Parts:
    """The parts of a large image, computed when they are read."""

    def __init__(self, reader, image, tiles):
        self.reader = reader
        self.image = image
        self.tiles = tiles

    def __iter__(self):
        for tile in self.tiles:
            yield Part(tile, self.reader._see(self.image, tile).layers)


def _turned_back(activation, turn):
    return activation.flip(2, 3) if turn else activation


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
        images = [self.reader.as_image(image) for image in batch]
        if self.recipe.pixels is not None:
            return [self._maps(image, self.reader(image)) for image in images]
        # The next image is read while the maps of the one before are computed; a reading without
        # layers is small.
        with ThreadPoolExecutor(1) as pool:
            maps = [
                pool.submit(self._maps, image, self.reader(image, with_layers=False))
                for image in images
            ]
            return [each.result() for each in maps]

    def _maps(self, image, reading):
        return guided_maps(image, reading, self.recipe, level=self.level)
