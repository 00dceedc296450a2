"""MicraNetClassifier: images to image-level labels."""

from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral, Real
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.history import History

from sklearn_micranet._stack._numbers import Interval

from ._labels._coverage import MIN_COVERAGE
from ._labels._images import read_images, resolve_image_shape
from ._labels._labels import read_labels, read_y
from ._labels._masks import are_masks
from ._labels._splits import check_groups
from ._labels._targets import Targets
from ._network._features import features_of
from ._network._fine_tuning import (
    freeze,
    load_pretrained,
    pretrained_weights,
    updated_parameters,
)
from ._network._module import MicraNet
from ._network._shape import N_DEPTHS
from ._network._weights import architecture_of, read_weights, write_weights
from ._network_classifier import Explained, NetworkClassifier, forget
from ._training._augmentation import make_augmenter
from ._training._batches import BatchIterator
from ._training._checkpoint import Checkpoint, training_key
from ._training._convergence import warn_if_nothing_is_learned
from ._training._cost import check_fits
from ._training._data import check_epoch, check_trainable, labelled_images, split_off
from ._training._loop import run_epochs
from ._training._loss import WeightedLoss, class_weights, is_balanced
from ._training._net import build_net, finish_net, own_copies
from ._training._schedule import training_callbacks
from ._training._seeding import draw_seed, resolve_device, seeded

_N_PREDICTED = 32  # images at most at a time, so that a sum in the linear layer is always the same


class MicraNetClassifier(NetworkClassifier):
    """Convolutional network that learns which classes an image contains.

    MICRA-Net [1]_ is trained on image-level labels only. What it learns on the way, its local
    maps, is read by :class:`GradCAMFeatureTransformer`.

    Binary and multi-label problems are trained with the binary cross-entropy of each class,
    mutually exclusive classes with the categorical cross-entropy, always with Adam.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        (height, width) or (height, width, n_channels) of flattened images, in px. ``None`` makes
        a square number of features a square image and anything else one row. Not used for
        images that are not flattened.
    background_label : label, default=None
        The class label of images without any structure, such as "empty": every other class has
        maps. ``None`` makes the larger of 0 and 1, of -1 and 1, and of False and True the
        structure. Other pairs of labels do not say which of them it is, and are refused
        where maps are asked for; of three or more labels all have maps then.
    n_filters : int, default=32
        Filters at the first of four depths; every following depth has twice as many.
    dropout : float, default=0.5
        Share of the pooled features that is dropped in training.
    lr : float, default=1e-3
        Learning rate of Adam.
    lr_schedule : {"plateau", "cosine", "constant"}, default="plateau"
        "plateau" divides the learning rate by 10, down to `min_lr`, when the monitored loss has
        not improved for more than `patience` epochs. "cosine" rises linearly to `lr` over the
        first tenth of the `max_epochs`, then falls to `min_lr` along a cosine.
    min_lr : float, default=1e-5
        Smallest learning rate of a schedule.
    patience : int, default=10
        Epochs without improvement that "plateau" waits for. Here and in `n_iter_no_change`, epochs
        of fewer than ten steps count in proportion: ten epochs are at least a hundred steps.
    batch_size : int, default=32
        Maximal number of images in a training batch. The memory of the training grows with it.
    max_epochs : int, default=100
        Maximal number of passes over the training images.
    early_stopping : bool, default=True
        Whether to stop when the monitored loss has not improved for `n_iter_no_change` epochs,
        and to return to the weights of the best epoch.
    n_iter_no_change : int, default=25
        Epochs without improvement before early stopping.
    validation_fraction : float, default=0.1
        Share of the training images that is set aside and monitored: a share of every class, so
        that rare ones are represented. With 0, or with too few images for it, the
        training loss is monitored. Not used if `fit` is given validation images.
    augmentation : str, callable, list of these, or None, default=None
        Random changes of the training images, made anew in every epoch, on the device. "flip",
        "turn" (by 90 degrees), "intensity", "gamma", "noise" and "blur" are each applied to an
        image with probability 0.5, in random order; "microscopy" stands for all six. A callable,
        such as a module of kornia, maps a batch, a tensor of shape (n_samples, n_channels,
        height, width), to another. Not on by default, because a flipped digit is another digit.
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes in the loss: ``{class label: weight}``, or "balanced" for weights
        inversely proportional to the class frequencies. A label that no image has is left out, as
        a fold may lack a rare class; a warning names it unless all others have a weight. For
        multi-label targets a dict holds the weight of each class where it is present (its
        *positive weight*), and a list holds a dict ``{0: weight, 1: weight}`` for each class.
    negatives_per_positive : float, default=None
        Ratio of unlabelled to positive images: each epoch consists of the images that contain a
        structure and, for each of them, so many images without any, drawn anew. ``None`` uses all
        images in every epoch.
    pretrained : str, path-like, dict, FrozenEstimator or None, default=None
        Weights to start from: a file of `save_weights`, a state dict of tensors, or a fitted
        MicraNetClassifier in a :class:`sklearn.frozen.FrozenEstimator`. Its linear layer is
        used if it is for as many classes; otherwise that layer starts anew.
    fine_tune_depth : int in [0, 4], default=4
        Number of depths, counted from the output, that are updated besides the linear layer:
        with 0 the linear layer only, with 4 everything. Frozen depths keep the statistics of
        their batch normalisation; without `pretrained` they keep random weights.
    threshold : float or array-like of shape (n_classes,), default=0.5
        Probability from which a class is predicted present, for all or for each class. A binary
        problem has one, that of the structure (of ``classes_[1]``, if nothing says which of two
        labels that is). Not used when the classes
        are mutually exclusive: then the most probable one is predicted.
    min_coverage : float, default=0.01
        Where masks stand for labels, the share of the image that a class has to cover to be
        present. A class without any pixel is never present.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "bfloat16" trains and predicts with automatic mixed precision; "auto" does so on a CUDA
        device that supports it. Local maps are always computed in float32.
    device : str or torch.device, default="auto"
        Where to compute. "auto" is CUDA if there is a device, the CPU otherwise.
    n_threads : int, default=None
        Number of threads that training on a CPU uses; ``None`` leaves it to torch. The last bits
        of the weights depend on it. With a number they are the same for every `n_jobs` of
        scikit-learn, whose processes otherwise get a share of the cores each.
    checkpoint_dir : str or path-like, default=None
        Folder in which the state of the training is kept, after every epoch. `fit` with the same
        parameters, images and labels goes on after the last whole epoch, and returns at once what
        was finished: a killed training, or grid search, can simply be started again. With
        ``random_state=None`` an interrupted training goes on, but a finished one is never returned.
        The state is found by a hash of the versions of this package, torch, skorch and NumPy, the
        parameters, the weights to start from, the images and the labels, so that several trainings
        share a folder. Of functions and classes in `augmentation` and `callbacks` the whole file
        that defines them counts.
    callbacks : list of skorch callbacks, default=None
        Run in addition to the schedule and early stopping, as shallow copies, so that training
        sets no attribute of the originals; ``net_.callbacks_`` holds the copies. Scores, such as
        ``EpochScoring("accuracy")``, compare labels as the loss does: 0 and 1 (the structure) of a
        binary problem, otherwise numbers of classes, or an indicator matrix. Of the state of
        callbacks, only that of skorch's schedules, scores and early stopping is part of a
        checkpoint; other callbacks are another training.
    random_state : int, RandomState instance or None, default=None
        Governs initial weights, validation split, batches, augmentation and dropout. Pass an
        int for reproducible results; ``None`` draws from NumPy's global random state. That of
        torch is left as it was.
    verbose : int, default=0
        With 1, a progress bar shows the batches, and one line per epoch reports the losses.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; the column numbers for multi-label targets. Of two labels that may be present
        together ``[[0, 1], [0, 1]]``, the values of each: with two column numbers scikit-learn's
        scorers would take the problem for a binary one, and read one column of probabilities.
    map_classes_ : ndarray of shape (n_maps,)
        Labels of the classes that have maps, in the order of the maps: all of an indicator
        matrix, of exclusive labels all but `background_label`.
    net_ : skorch.NeuralNet
        The trained network with its optimiser and history.
    module_ : torch.nn.Module
        The network itself, ``net_.module_``, in evaluation mode.
    history_ : skorch.history.History
        One dict per epoch with the losses, ``net_.history`` without its batches.
        ``pandas.DataFrame(history_)`` is a table, ``history_[:, "train_loss"]`` a list to plot.
    updated_parameters_ : list of str
        Names of the parameters of `module_` that training updates.
    weights_metadata_ : dict
        What a file says besides the weights; after `load_weights`.
    n_channels_in_ : int
        Channels of the training images.
    n_features_in_ : int
        Number of features of flattened training images.
    image_shape_ : tuple of int or None
        Shape of flattened training images; ``None`` if they were not flattened.
    loss_weights_ : ndarray of shape (2, n_outputs) or (n_classes,)
        What `class_weight` makes of the labels: the weight of each output where its class is
        absent and present, or of each of mutually exclusive classes. None after `load_weights`
        with "balanced", which needs labels.

    See Also
    --------
    GradCAMFeatureTransformer : Local maps of a classifier.

    Notes
    -----
    Of parameters that are set after `fit`, those that a prediction is made with act at once:
    `threshold`, `precision`, and `min_coverage` where masks are scored. All others shape the
    training and have no effect before the next `fit`; `partial_fit` also reads `lr` and
    `batch_size`. The same rule holds for all estimators of this package.

    Memory grows with the batch, not with the number of images: images stay in their own dtype
    until their batch is made, so that a memory-mapped array larger than memory can be used. A
    prediction takes at most 1 GiB, whatever the size of the images and the `batch_size`: large
    ones are read in parts, with the same result but for the rounding of convolutions.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_micranet import MicraNetClassifier
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> classifier = MicraNetClassifier(n_filters=4, max_epochs=5, random_state=0)
    >>> classifier.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.9
    True
    """

    _parameter_constraints: dict = {
        "image_shape": ["array-like", None],
        "background_label": "no_validation",
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
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
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "negatives_per_positive": [Interval(Real, 0, None, closed="neither"), None],
        "pretrained": [str, PathLike, Mapping, HasMethods(["fit", "predict"]), None],
        "fine_tune_depth": [Interval(Integral, 0, N_DEPTHS, closed="both")],
        "threshold": [Interval(Real, 0, 1, closed="both"), "array-like"],
        "min_coverage": [Interval(Real, 0, 1, closed="both")],
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
        image_shape=None,
        background_label=None,
        n_filters=32,
        dropout=0.5,
        lr=1e-3,
        lr_schedule="plateau",
        min_lr=1e-5,
        patience=10,
        batch_size=32,
        max_epochs=100,
        early_stopping=True,
        n_iter_no_change=25,
        validation_fraction=0.1,
        augmentation=None,
        class_weight=None,
        negatives_per_positive=None,
        pretrained=None,
        fine_tune_depth=4,
        threshold=0.5,
        min_coverage=MIN_COVERAGE,
        precision="auto",
        device="auto",
        n_threads=None,
        checkpoint_dir=None,
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.image_shape = image_shape
        self.background_label = background_label
        self.n_filters = n_filters
        self.dropout = dropout
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
        self.class_weight = class_weight
        self.negatives_per_positive = negatives_per_positive
        self.pretrained = pretrained
        self.fine_tune_depth = fine_tune_depth
        self.threshold = threshold
        self.min_coverage = min_coverage
        self.precision = precision
        self.device = device
        self.n_threads = n_threads
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        """Train the network from new initial weights, or from `pretrained` ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width), \
                (n_samples, height, width, n_channels) or (n_samples, n_features)
            Images of any real dtype, channels last.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or \
                (n_samples, n_classes, height, width)
            Class labels, an indicator matrix, masks, or instances. The last two are reduced to the
            labels of the classes that cover `min_coverage` of the image; the network never sees
            where.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0 of the images in the loss; only their ratios matter. Images of weight 0
            are left out.
        groups : array-like of shape (n_samples,), default=None
            Images of one group, such as overlapping crops of one image, are not split between
            training and validation: pass `groups` of :func:`sklearn_micranet.images.extract_crops`.
            Of its lazy crops those of other groups that show pixels of monitored ones are not
            trained on, unless a class would be lost.
        X_val : array-like, default=None
            Validation images, as X, that are monitored, all of them, instead of a share of X.
        y_val : array-like, default=None
            Labels or masks of X_val.

        Returns
        -------
        self : MicraNetClassifier

        Raises
        ------
        ValueError
            If X or y are not as described, y holds a single class, a training step does not fit
            in memory, or training diverges. The classifier is then not fitted any more.
        KeyboardInterrupt
            If Ctrl-C is pressed. The classifier then has the best weights of the epochs so far, if
            `early_stopping` keeps them, and the last ones otherwise.

        Warns
        -----
        UserWarning
            If overlapping crops are both trained on and monitored, for lack of `groups`: of crops
            cut by :func:`~sklearn_micranet.images.extract_crops`, or among the first 256 images in
            memory of which two share rows or columns.
        ConvergenceWarning
            If the network that was kept predicts hardly better than the class frequencies.
        UserWarning
            If the training may take more than five minutes, after its first batches.
        """
        # Read first: the weights may be those of this classifier, which is emptied below.
        initial = None if self.pretrained is None else pretrained_weights(self.pretrained)
        forget(self)
        images, labels = self._read_training(X, y)
        self._learn_input(X, images, labels.targets)
        groups = check_groups(groups, len(images))
        data = labelled_images(images, labels, sample_weight)
        self._check_epoch(data, n_updated=self.fine_tune_depth)
        check_trainable(data, labels)
        valid_data = self._validation_data(X_val, y_val)
        self.loss_weights_ = class_weights(
            self.class_weight, labels.targets, labels.y[data.indices]
        )
        augment = make_augmenter(self.augmentation)
        seed, checkpoint = draw_seed(self.random_state), None
        if self.checkpoint_dir is not None:
            checkpoint = self._open_checkpoint(seed, augment, initial, groups, data, valid_data)
            seed = checkpoint.seed
        self._random_state = np.random.RandomState(seed)
        if valid_data is None:
            data, valid_data = split_off(
                data,
                labels,
                self.validation_fraction,
                self.negatives_per_positive,
                self._random_state,
                groups,
            )
        with seeded(self._random_state, resolve_device(self.device), self.n_threads):
            callbacks = self._callbacks_of_training(data, valid_data, checkpoint)
            net = self._build_net(augment, initial, callbacks, valid_data)
            check_fits(net, data)
            self.net_ = net
            try:
                run_epochs(self.net_, data, self.max_epochs, checkpoint)
            except BaseException:
                with suppress(ValueError):  # of diverged weights: the other reason counts
                    self._finish()
                raise
        self._finish()
        warn_if_nothing_is_learned(self.net_, data, valid_data)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one more epoch at `lr`, without schedule, validation or early stopping.

        Parameters of the network and of its training are those of the first call, but for `lr`
        and `batch_size`, which may change between calls.

        Parameters
        ----------
        X : array-like
            Images, as in `fit`.
        y : array-like
            Labels, masks or instances, as in `fit`. The mask of a binary problem is that of the
            structure.
        classes : array-like of shape (n_classes,), default=None
            All class labels that will ever be passed. Required in the first call for labels of
            shape (n_samples,).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images, as in `fit`.

        Returns
        -------
        self : MicraNetClassifier

        Raises
        ------
        ValueError
            If X or y are not as described, or a training step does not fit in memory; the weights
            are then as before. If training diverges; the classifier is then not fitted any more.
        """
        first = not self.__sklearn_is_fitted__()
        if first:
            self._begin(X, y, classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self._targets.classes):
            raise ValueError(
                f"classes must be those of the first call, {self._targets.classes.tolist()}. Got "
                f"{classes} instead."
            )
        images = self._read_images(X)
        data = labelled_images(images, self._read_labels(images, y), sample_weight)
        n_updated = self.fine_tune_depth if first else N_DEPTHS - self.module_.n_frozen
        self._check_epoch(data, n_updated)
        if self.loss_weights_ is None:
            raise ValueError(
                'class_weight must hold the weights in partial_fit. Got "balanced" instead, which '
                "needs the labels of all images."
            )
        with seeded(self._random_state, resolve_device(self.device), self.n_threads):
            if first:
                initial = None if self.pretrained is None else pretrained_weights(self.pretrained)
                augment = make_augmenter(self.augmentation)
                net = self._build_net(augment, initial, own_copies(self.callbacks))
            else:
                net = self.net_
            net.set_params(lr=self.lr, batch_size=self.batch_size)
            check_fits(net, data)
            self.net_ = net
            run_epochs(self.net_, data, 1)
        self._finish()
        return self

    def save_weights(self, path):
        """Write the weights of the network to a file, without pickle.

        Parameters
        ----------
        path : str or path-like
            The file: tensors, and the class labels and thresholds as plain values. It is replaced
            as a whole or, if that fails, left as it was.
        """
        check_is_fitted(self)
        classes, background = self._targets.classes, self._targets.background
        metadata = {
            "kind": self._targets.kind,
            "classes": classes.tolist(),
            "background_label": None if background is None else classes[background].item(),
            "image_shape": self.image_shape_,
            "threshold": np.asarray(self.threshold).tolist(),
        }
        write_weights(path, self.module_.state_dict(), metadata)

    def load_weights(self, path, *, name=None):
        """Become what was saved: fitted, with the weights and class labels of a file.

        Parameters
        ----------
        path : str or path-like
            A file of `save_weights`, a state dict that torch has saved, or a file of the weights
            of the paper's authors. The latter two have no class labels: with one output these
            become 0 and 1, with several the problem is multi-label.
        name : str, default=None
            The network to read, from an HDF5 file that holds several.

        Returns
        -------
        self : MicraNetClassifier
            Its parameters, `threshold` among them, are its own; what the file says of them is
            in the attribute ``weights_metadata_``.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or of another kind, or `n_filters` is not that of the file.
        """
        self._validate_params()
        weights, metadata = read_weights(path, name=name)
        architecture = architecture_of(weights)
        if architecture["n_filters"] != self.n_filters:
            raise ValueError(
                f"n_filters must be {architecture['n_filters']}, as in {path}. Got "
                f"{self.n_filters} instead."
            )
        targets = self._targets_of_file(architecture["n_outputs"], metadata)
        forget(self)
        self._set_targets(targets)
        self.n_channels_in_, self.image_shape_ = architecture["n_channels"], None
        image_shape = metadata.get("image_shape") or self.image_shape
        if image_shape is not None:
            self.n_features_in_ = int(np.prod(image_shape))
            self.image_shape_ = resolve_image_shape(image_shape, self.n_features_in_)
        self.weights_metadata_ = metadata
        self._random_state = np.random.RandomState(draw_seed(self.random_state))
        self._weigh_classes(targets.classes)
        with seeded(self._random_state, resolve_device(self.device), self.n_threads):
            augment = make_augmenter(self.augmentation)
            self.net_ = self._build_net(augment, weights, own_copies(self.callbacks))
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

    # --- reading --------------------------------------------------------------------------

    def _read_training(self, X, y):
        images = self._read_new_images(X)
        name = type(self).__name__
        labels = read_labels(
            y,
            images,
            name=name,
            background_label=self.background_label,
            min_coverage=self.min_coverage,
        )
        return images, labels

    def _read_new_images(self, X):
        return read_images(X, name=type(self).__name__, image_shape=self.image_shape)

    def _learn_input(self, X, images, targets):
        """Remember what later images and labels have to be like."""
        self.n_channels_in_, self.image_shape_ = images.n_channels, images.image_shape
        if images.is_flattened:  # n_features_in_, and the feature names of a data frame
            validate_data(self, X, skip_check_array=True)
        self._set_targets(targets)

    def _targets_of_file(self, n_outputs, metadata):
        """Return what the outputs of a network in a file stand for."""
        kind = metadata.get("kind", "multilabel" if n_outputs > 1 else "binary")
        if kind == "multilabel":
            return Targets.of(np.zeros((1, n_outputs)))
        classes = np.asarray(metadata.get("classes", [0, 1]))
        targets = Targets.of(classes, metadata.get("background_label"))
        if self.background_label is not None:
            wanted = Targets.of(classes, self.background_label)
            if kind == "binary" and wanted.positive != targets.positive:
                needed = classes.tolist()[1 - targets.positive]
                raise ValueError(
                    f"background_label must be {needed!r}, as the network of the file was trained. "
                    f"Got {self.background_label!r} instead."
                )
            targets = wanted
        return targets

    def _set_targets(self, targets):
        targets.check_threshold(self.threshold)
        self._targets, self.classes_ = targets, targets.scorer_classes

    def _read_images(self, X):
        images = read_images(
            X,
            name=type(self).__name__,
            image_shape=self.image_shape_,
            n_channels=self.n_channels_in_,
            allow_ragged=True,
        )
        if images.is_flattened:
            validate_data(self, X, reset=False, skip_check_array=True)
        return images

    def _read_labels(self, images, y):
        return read_labels(
            y,
            images,
            name=type(self).__name__,
            targets=self._targets,
            min_coverage=self.min_coverage,
        )

    def _validation_data(self, X_val, y_val):
        """Return the validation images of the user, None if there are none."""
        if (X_val is None) != (y_val is None):
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(f"X_val and y_val must be passed together. Got no {missing}.")
        if X_val is None:
            return None
        images = self._read_images(X_val)
        if images.size is None:
            raise ValueError(
                "X_val must hold images of one size. Got images of different sizes instead. Cut "
                "them into crops of one size."
            )
        return labelled_images(images, self._read_labels(images, y_val))

    # --- training -------------------------------------------------------------------------

    def _begin(self, X, y, classes):
        """Learn of the first call of `partial_fit` what all calls have in common."""
        images = self._read_new_images(X)
        labels = read_y(y, images, name=type(self).__name__, min_coverage=self.min_coverage)
        if labels.ndim == 1:
            if classes is None and not are_masks(y):
                raise ValueError("classes must be passed on the first call to partial_fit.")
            labels = np.asarray([0, 1] if classes is None else classes)
        self._learn_input(X, images, Targets.of(labels, self.background_label))
        self._weigh_classes(labels)
        self._random_state = np.random.RandomState(draw_seed(self.random_state))

    def _weigh_classes(self, labels):
        """Work out the weights of the classes without the labels of a whole training."""
        self.loss_weights_ = None
        if not is_balanced(self.class_weight):
            self.loss_weights_ = class_weights(self.class_weight, self._targets, labels)

    def _check_epoch(self, data, n_updated):
        check_epoch(
            data,
            self._targets,
            n_updated=n_updated,
            negatives_per_positive=self.negatives_per_positive,
            is_balanced=is_balanced(self.class_weight),
        )

    def _open_checkpoint(self, seed, augment, initial, groups, *data):
        is_reproducible = self.random_state is not None
        known_seed = seed if is_reproducible else None
        parameters = self.get_params(deep=False) | {"groups": groups}
        key = training_key(parameters, augment, initial, known_seed, *data)
        return Checkpoint(Path(self.checkpoint_dir) / f"{key}.pt", seed, is_reproducible)

    def _callbacks_of_training(self, data, valid_data, checkpoint):
        callbacks = own_copies(self.callbacks)
        n_batches = len(BatchIterator(data, self.batch_size, **self._iteration()))
        monitor = "train_loss" if valid_data is None else "valid_loss"
        callbacks += training_callbacks(self, n_batches, monitor)
        return callbacks if checkpoint is None else [*callbacks, ("checkpoint", checkpoint)]

    def _iteration(self):
        return {"negatives_per_positive": self.negatives_per_positive}

    def _build_net(self, augment, initial, callbacks, valid_data=None):
        """Return the net; the random numbers of its weights are those of torch."""
        loss_weights = self.loss_weights_
        if loss_weights is None:
            loss_weights = class_weights(None, self._targets, self._targets.classes)
        network = {
            "n_channels": self.n_channels_in_,
            "n_outputs": self._targets.n_outputs,
            "n_filters": self.n_filters,
            "dropout": self.dropout,
            "precision": self.precision,
        }
        loss = {"exclusive": self._targets.kind == "multiclass", "weights": loss_weights}
        device = resolve_device(self.device)
        net = build_net(
            (MicraNet, network),
            (WeightedLoss, loss),
            lr=self.lr,
            batch_size=self.batch_size,
            device=device,
            callbacks=callbacks,
            verbose=self.verbose,
            valid_data=valid_data,
            augment=augment,
            labelling={"targets": self._targets, "threshold": self.threshold},
            **self._iteration(),
        )
        if initial is not None:
            load_pretrained(net.module_, initial)
        freeze(net.module_, self.fine_tune_depth)
        if device.type == "cuda":  # on a CPU it is no faster
            net.module_.to(memory_format=torch.channels_last)
        return net

    def _finish(self):
        try:
            finish_net(self.net_)
        except ValueError:
            forget(self)
            raise

    # --- what was learned -----------------------------------------------------------------

    def _explained(self):
        check_is_fitted(self)
        self._check_parameters()
        weights = {name: tensor.clone() for name, tensor in self.module_.state_dict().items()}
        return Explained((weights,), self._targets, self.threshold, self.image_shape_)

    @torch.inference_mode()
    def _logits(self, images):
        logits = np.empty((len(images), self._targets.n_outputs), dtype=np.float32)
        self.module_.eval()  # whoever trained net_ directly may have left it in training mode
        self.module_.precision = self.precision  # it may have been set since
        for start in range(0, len(images), _N_PREDICTED):
            rows = np.arange(start, min(start + _N_PREDICTED, len(images)))
            features = features_of(self.module_, images, rows)
            logits[rows] = self.module_.logits(features).cpu().numpy()
        return logits
