"""UNetSegmenter: images to masks, learned from masks."""

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from numbers import Integral, Real
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch.history import History

from sklearn_micranet._stack._numbers import Interval

from ._labels._images import read_images
from ._labels._splits import check_groups
from ._network._fine_tuning import freeze, updated_parameters
from ._network._pixel_logits import PixelLogits
from ._network._unet import (
    UNet,
    load_pretrained_unet,
    pretrained_unet_weights,
    read_unet_weights,
    unet_architecture_of,
    write_unet_weights,
)
from ._network_classifier import forget
from ._stack._lazy_stack import LazyStack
from ._threshold_segmenter import ThresholdSegmenter
from ._training._augmentation import make_augmenter
from ._training._batches import BatchIterator
from ._training._checkpoint import Checkpoint, training_key
from ._training._cost import check_fits
from ._training._loop import run_epochs
from ._training._masks import (
    MaskedImages,
    PixelLoss,
    dilated,
    read_masks,
    split_off_groups,
    with_maps,
)
from ._training._net import build_net, finish_net, own_copies
from ._training._schedule import training_callbacks
from ._training._seeding import draw_seed, resolve_device, seeded

_N_PREDICTED = 16  # images at most, whose logits are computed at a time


class UNetSegmenter(TransformerMixin, BaseEstimator):
    """Segment structures with a U-Net that is trained on masks.

    The fully supervised baseline [1]_ of the paper [2]_: what drawing masks, instead of labelling
    whole images, would bring. It is trained by the same loop as :class:`MicraNetClassifier`, with
    Adam and the binary cross-entropy of each pixel and map.

    Parameters
    ----------
    n_filters : int, default=32
        Filters at the size of the image; after each pooling there are twice as many. The original
        has 64.
    n_poolings : int, default=4
        How often the image is halved.
    contour_dilation : float, default=0
        By how many px the masks that are learned from are dilated, those of validation images too.
        Weak supervision: 5, 10 and 25 px in the paper.
    lr : float, default=1e-3
        Learning rate of Adam.
    lr_schedule : {"plateau", "cosine", "constant"}, default="plateau"
        "plateau" divides the learning rate by 10, down to `min_lr`, when the monitored loss has
        not improved for more than `patience` epochs. "cosine" rises linearly to `lr` over the
        first tenth of the `max_epochs`, then falls to `min_lr` along a cosine.
    min_lr : float, default=1e-5
        Smallest learning rate of a schedule.
    patience : int, default=10
        Epochs without improvement that "plateau" waits for.
    batch_size : int, default=16
        Maximal number of images in a training batch. The memory of `fit` grows with it.
    max_epochs : int, default=100
        Maximal number of passes over the training images.
    early_stopping : bool, default=True
        Whether to stop when the monitored loss has not improved for `n_iter_no_change` epochs,
        and to return to the weights of the best epoch.
    n_iter_no_change : int, default=25
        Epochs without improvement before early stopping.
    validation_fraction : float, default=0.1
        Share of the training images that is set aside and monitored, so that every structure is
        represented. With 0, or with too few images for it, the training loss is monitored. Not
        used if `fit` is given validation images.
    augmentation : str, callable, list of these, or None, default=None
        Random changes of the training images, as in :class:`MicraNetClassifier`. "flip" and "turn"
        move the masks with their images. A callable sees the images only: it must leave every
        structure in its place.
    pretrained : str, path-like, dict, FrozenEstimator or None, default=None
        Weights to start from: a file of `save_weights`, a state dict of tensors, or a fitted
        UNetSegmenter in a :class:`sklearn.frozen.FrozenEstimator`. Its last convolution is used
        if it is for as many maps; otherwise that starts anew.
    fine_tune_depth : int in [0, 2 * n_poolings + 1], default=None
        At how many sizes, counted from the output, the network is updated besides its last
        convolution: with 0 that only, with `n_poolings` the expanding path too. ``None`` updates
        everything. The rest keeps the statistics of its batch normalisation and, without
        `pretrained`, random weights.
    threshold : float, default=0.5
        Probability above which a pixel belongs to the structure.
    min_size : int, default=0
        Components of fewer px are removed, see :class:`ThresholdSegmenter`.
    min_distance : int, default=None
        Smallest distance in px between the middles of touching objects, which
        `predict_instances` splits at necks, see :class:`ThresholdSegmenter`. ``None`` splits
        nothing.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "bfloat16" trains and predicts with automatic mixed precision; "auto" does so on a CUDA
        device that supports it.
    device : str or torch.device, default="auto"
        Where to compute. "auto" is CUDA if there is a device, the CPU otherwise.
    n_threads : int, default=None
        Number of threads that training on a CPU uses; ``None`` leaves it to torch. The last bits
        of the weights depend on it.
    checkpoint_dir : str or path-like, default=None
        Folder in which the state of the training is kept after every epoch, so that a training
        that was killed goes on, as in :class:`MicraNetClassifier`.
    callbacks : list of skorch callbacks, default=None
        Run in addition to the schedule and early stopping, as shallow copies.
    random_state : int, RandomState instance or None, default=None
        Governs initial weights, validation split, batches and augmentation. Pass an int for
        reproducible results; ``None`` draws from NumPy's global random state.
    verbose : int, default=0
        With 1, a progress bar shows the batches, and one line per epoch reports the losses.

    Attributes
    ----------
    n_maps_ : int
        Number of maps, as of the masks.
    n_channels_in_ : int
        Channels of the training images.
    net_ : skorch.NeuralNet
        The trained network with its optimiser and history.
    module_ : torch.nn.Module
        The network itself, ``net_.module_``, in evaluation mode.
    history_ : skorch.history.History
        One dict per epoch with the losses.
    updated_parameters_ : list of str
        Names of the parameters of `module_` that training updates.

    See Also
    --------
    MicraNetClassifier : Learns from labels of whole images.
    ThresholdSegmenter : Makes the masks of the probability maps.

    Notes
    -----
    Images of any size are padded at the bottom and the right with their edge values, to a multiple
    of ``2 ** n_poolings`` px, and the maps cropped. Background added there moves nothing. While
    training, memory grows with the batch, and by a byte for each pixel of the masks. Predictions
    are computed within 1 GiB, of large images tile by tile with the pixels around that count, and
    in addition take 4 bytes for each pixel and map of an image.

    References
    ----------
    .. [1] Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation",
       MICCAI 2015. :doi:`10.1007/978-3-319-24574-4_28`
    .. [2] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> from sklearn_micranet import UNetSegmenter
    >>> rng = np.random.default_rng(0)
    >>> masks = gaussian_filter(rng.normal(size=(20, 16, 16)), sigma=(0, 2, 2)) > 0.05
    >>> images = masks + rng.normal(scale=0.5, size=masks.shape)
    >>> segmenter = UNetSegmenter(
    ...     n_filters=4, n_poolings=2, lr=0.02, batch_size=4, max_epochs=10, random_state=0
    ... )
    >>> segmenter.fit(images[:10], masks[:10]).score(images[10:], masks[10:]) > 0.7
    True
    """

    _parameter_constraints: dict = {
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "n_poolings": [Interval(Integral, 1, None, closed="left")],
        "contour_dilation": [Interval(Real, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"plateau", "cosine", "constant"})],
        "min_lr": [Interval(Real, 0, None, closed="left")],
        "patience": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "augmentation": [str, callable, list, tuple, None],
        "pretrained": [str, PathLike, Mapping, HasMethods(["fit", "predict"]), None],
        "fine_tune_depth": [Interval(Integral, 0, None, closed="left"), None],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "min_size": [Interval(Integral, 0, None, closed="left")],
        "min_distance": [Interval(Integral, 1, None, closed="left"), None],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "device": [str, torch.device],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
        "checkpoint_dir": [str, PathLike, None],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        n_filters=32,
        n_poolings=4,
        contour_dilation=0,
        lr=1e-3,
        lr_schedule="plateau",
        min_lr=1e-5,
        patience=10,
        batch_size=16,
        max_epochs=100,
        early_stopping=True,
        n_iter_no_change=25,
        validation_fraction=0.1,
        augmentation=None,
        pretrained=None,
        fine_tune_depth=None,
        threshold=0.5,
        min_size=0,
        min_distance=None,
        precision="auto",
        device="auto",
        n_threads=None,
        checkpoint_dir=None,
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.n_filters = n_filters
        self.n_poolings = n_poolings
        self.contour_dilation = contour_dilation
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.min_lr = min_lr
        self.patience = patience
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.augmentation = augmentation
        self.pretrained = pretrained
        self.fine_tune_depth = fine_tune_depth
        self.threshold = threshold
        self.min_size = min_size
        self.min_distance = min_distance
        self.precision = precision
        self.device = device
        self.n_threads = n_threads
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, *, groups=None, X_val=None, y_val=None):
        """Train the network from new initial weights, or from `pretrained` ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width) or \
                (n_samples, height, width, n_channels)
            Images of any real dtype, channels last.
        y : array-like of shape (n_samples, n_maps, height, width) or (n_samples, height, width)
            Masks, one map for each kind of structure, of dtype bool or of 0 and 1; or instances,
            integers with one number > 0 per object. Structures may overlap.
        groups : array-like of shape (n_samples,), default=None
            Images of one group, such as the crops of one large image, are together either trained
            on or monitored. ``None`` makes each image a group.
        X_val : array-like, default=None
            Validation images, as X, that are monitored, all of them, instead of a share of X.
        y_val : array-like, default=None
            Masks or instances of X_val.

        Returns
        -------
        self : UNetSegmenter

        Raises
        ------
        ValueError
            If X or y are not as described, y holds no structure, a training step does not fit in
            memory, or training diverges. The segmenter is then not fitted any more.
        KeyboardInterrupt
            If Ctrl-C is pressed. The segmenter then has the best weights of the epochs so far, if
            `early_stopping` keeps them, and the last ones otherwise.
        """
        self._check_fine_tune_depth()
        # Read first: the weights may be those of this segmenter, which is emptied below.
        initial = None if self.pretrained is None else pretrained_unet_weights(self.pretrained)
        augment = make_augmenter(self.augmentation)
        forget(self)
        images, masks, groups = self._read_training(X, y, groups)
        data = self._masked(images, masks)
        n_channels, n_maps = images.n_channels, masks.shape[1]
        valid_data = self._validation_data(X_val, y_val, n_channels, n_maps)
        seed, checkpoint = draw_seed(self.random_state), None
        if self.checkpoint_dir is not None:
            checkpoint = self._open_checkpoint(seed, augment, initial, groups, data, valid_data)
            seed = checkpoint.seed
        random_state = np.random.RandomState(seed)
        if valid_data is None:
            data, valid_data = split_off_groups(
                data, self.validation_fraction, groups, random_state
            )
        self._check_batch_norm(data)
        with seeded(random_state, resolve_device(self.device), self.n_threads):
            callbacks = self._callbacks_of_training(data, valid_data, checkpoint)
            self._start_net(n_channels, n_maps, augment, initial, callbacks, valid_data, data)
            try:
                run_epochs(self.net_, data, self.max_epochs, checkpoint)
            except BaseException:
                with suppress(ValueError):  # of diverged weights: the other reason counts
                    self._finish()
                raise
        self._finish()
        return self

    def transform(self, X):
        """Return the probability maps.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `fit`; their size may differ from that of the training images and, in
            a list, from each other.

        Returns
        -------
        probability_maps : LazyStack of shape (n_samples, n_maps, height, width)
            Of dtype float32, in [0, 1]. A sequence of arrays of shape (n_maps, height, width) if
            the images differ in size.
        """
        logits = self._logits(X)
        return logits.map(expit, item_shape=logits.item_shape)

    def predict(self, X):
        """Return the masks.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `transform`.

        Returns
        -------
        masks : bool ndarray of shape (n_samples, n_maps, height, width)
            A list of arrays if the images differ in size.
        """
        logits = self._logits(X)
        return self._segmenter().predict(logits)

    def predict_instances(self, X):
        """Return the masks with a number for each object.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `transform`.

        Returns
        -------
        instances : int32 ndarray of shape (n_samples, n_maps, height, width)
            0 for the background; in each image and map 1, 2 and so on for the objects. Above 0
            exactly where `predict` is true. A list of arrays if the images differ in size.
        """
        logits = self._logits(X)
        return self._segmenter().predict_instances(logits)

    def score(self, X, y):
        """Return the mean intersection over union of the masks, as of :class:`ThresholdSegmenter`.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `transform`.
        y : array-like of shape (n_samples, n_maps, height, width) or (n_samples, height, width)
            True masks or instances, as in `fit`; a list of arrays if the images differ in size.
            They are compared as they are, not dilated.

        Returns
        -------
        score : float
            In [0, 1]. 1 if there is no mask at all.
        """
        logits = self._logits(X)
        return self._segmenter().score(logits, with_maps(y))

    def save_weights(self, path):
        """Write the weights of the network to a file, without pickle.

        Parameters
        ----------
        path : str or path-like
            The file: tensors, and the threshold as a plain value. It is replaced as a whole or, if
            that fails, left as it was.
        """
        check_is_fitted(self)
        metadata = {"threshold": float(self.threshold)}
        write_unet_weights(path, self.module_.state_dict(), metadata)

    def load_weights(self, path):
        """Become what was saved: fitted, with the weights of a file.

        Parameters
        ----------
        path : str or path-like
            A file of `save_weights`.

        Returns
        -------
        self : UNetSegmenter
            Its parameters, `threshold` among them, are its own.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or of another kind, or `n_filters` or `n_poolings` are not those
            of the file.
        """
        self._validate_params()
        weights, _ = read_unet_weights(path)
        sizes = unet_architecture_of(weights)
        for name in ("n_filters", "n_poolings"):
            if sizes[name] != getattr(self, name):
                raise ValueError(
                    f"{name} must be {sizes[name]}, as in {path}. Got {getattr(self, name)} "
                    "instead."
                )
        forget(self)
        random_state = np.random.RandomState(draw_seed(self.random_state))
        augment = make_augmenter(self.augmentation)
        with seeded(random_state, resolve_device(self.device)):
            self._start_net(
                sizes["n_channels"], sizes["n_maps"], augment, weights, own_copies(self.callbacks)
            )
        self.module_.eval()
        return self

    @property
    def module_(self):
        return self.net_.module_

    @property
    def updated_parameters_(self):
        return updated_parameters(self.module_)

    @property
    def history_(self):
        rows = self.net_.history
        return History({k: v for k, v in row.items() if k != "batches"} for row in rows)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    # --- reading --------------------------------------------------------------------------

    def _read_training(self, X, y, groups):
        if y is None:
            raise ValueError(
                "UNetSegmenter requires y to be passed, but the target y is None. Pass the masks "
                "or the instances of the images."
            )
        # First, as flattened images may be read with a warning about their shape.
        images = None if getattr(X, "ndim", 0) == 2 else read_images(X, name=type(self).__name__)
        if images is None or images.is_flattened:
            raise ValueError(
                "X must have the shape (n_samples, height, width) or (n_samples, height, width, "
                "n_channels). Got 2 dimensions instead: reshape flattened images."
            )
        masks = read_masks(y, images)
        if not masks.any():
            raise ValueError(
                "y must hold at least one pixel of a structure. Got empty masks only instead."
            )
        groups = check_groups(groups, len(images))
        return images, masks, groups

    def _masked(self, images, masks):
        if self.contour_dilation:
            masks = dilated(masks, self.contour_dilation)
        return MaskedImages(images.stack, torch.from_numpy(masks))

    def _validation_data(self, X_val, y_val, n_channels, n_maps):
        """Return the validation images of the user, None if there are none."""
        if (X_val is None) != (y_val is None):
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(f"X_val and y_val must be passed together. Got no {missing}.")
        if X_val is None:
            return None
        images = read_images(X_val, name=type(self).__name__, n_channels=n_channels)
        return self._masked(images, read_masks(y_val, images, n_maps))

    def _check_batch_norm(self, data):
        if len(data) == 1 and max(data.size) <= 2**self.n_poolings:
            raise ValueError(
                f"X must hold at least two images, or one of more than {2**self.n_poolings} px in "
                "height or width: batch normalisation cannot train on a single value. Got one "
                f"image of {data.size} px instead."
            )

    def _check_fine_tune_depth(self):
        most = 2 * self.n_poolings + 1
        if self.fine_tune_depth is not None and self.fine_tune_depth > most:
            raise ValueError(
                f"fine_tune_depth must be at most 2 * n_poolings + 1, {most}: the network has so "
                f"many sizes. Got {self.fine_tune_depth} instead: None updates everything."
            )

    # --- training -------------------------------------------------------------------------

    def _open_checkpoint(self, seed, augment, initial, groups, *data):
        is_reproducible = self.random_state is not None
        known_seed = seed if is_reproducible else None
        parameters = self.get_params(deep=False) | {"groups": groups}
        key = training_key(parameters, augment, initial, known_seed, *data)
        return Checkpoint(Path(self.checkpoint_dir) / f"{key}.pt", seed, is_reproducible)

    def _callbacks_of_training(self, data, valid_data, checkpoint):
        n_batches = len(BatchIterator(data, self.batch_size))
        monitor = "train_loss" if valid_data is None else "valid_loss"
        callbacks = [*own_copies(self.callbacks), *training_callbacks(self, n_batches, monitor)]
        return callbacks if checkpoint is None else [*callbacks, ("checkpoint", checkpoint)]

    def _start_net(
        self, n_channels, n_maps, augment, initial, callbacks, valid_data=None, data=None
    ):
        """Build the net; the random numbers of its weights are those of torch."""
        network = {
            "n_channels": n_channels,
            "n_maps": n_maps,
            "n_filters": self.n_filters,
            "n_poolings": self.n_poolings,
            "precision": self.precision,
        }
        device = resolve_device(self.device)
        net = build_net(
            (UNet, network),
            (PixelLoss, {}),
            lr=self.lr,
            batch_size=self.batch_size,
            device=device,
            callbacks=callbacks,
            verbose=self.verbose,
            valid_data=valid_data,
            augment=augment,
            augments_targets=True,
        )
        if initial is not None:
            load_pretrained_unet(net.module_, initial)
        if self.fine_tune_depth is not None:
            freeze(net.module_, self.fine_tune_depth)
        if device.type == "cuda":  # on a CPU it is no faster
            net.module_.to(memory_format=torch.channels_last)
        if data is not None:
            check_fits(net, data)
        self.n_channels_in_, self.n_maps_, self.net_ = n_channels, n_maps, net

    def _finish(self):
        try:
            finish_net(self.net_)
        except ValueError:
            forget(self)
            raise

    # --- prediction -----------------------------------------------------------------------

    def _logits(self, X):
        """Return the lazy stack of the logits of each pixel, from the network as it is now."""
        check_is_fitted(self)
        self._validate_params()
        images = read_images(
            X, name=type(self).__name__, n_channels=self.n_channels_in_, allow_ragged=True
        )
        item_shape = images.size and (self.n_maps_, *images.size)
        network = deepcopy(self.module_).eval()
        network.precision = self.precision  # it may have been set since
        return LazyStack(
            images.stack,
            PixelLogits(network),
            item_shape=item_shape,
            batch_size=images.batch_size(_N_PREDICTED, self.n_maps_),
        )

    def _segmenter(self):
        # Of logits, not of probabilities: where these are all 1.0, the map is constant.
        return ThresholdSegmenter(
            method="fixed",
            threshold=float(logit(self.threshold)),
            min_size=self.min_size,
            min_distance=self.min_distance,
        )
