"""MicraNetClassifier: images to image-level labels."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.helper import predefined_split
from torch import nn

from ._batches import BatchIterator, LabelledImages, equal_sizes, to_tensor
from ._lazy_stack import take
from ._network import MicraNet
from ._targets import Targets, check_labels, labels_from_masks
from ._training import resolve_device, seeded, split_off_validation, training_callbacks
from ._validation import are_masks, check_images, check_masks, image_size


class MicraNetClassifier(ClassifierMixin, BaseEstimator):
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
        Epochs without improvement that "plateau" waits for.
    batch_size : int, default=32
        Maximal number of images in a training batch. Memory grows with it.
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
        training loss is monitored.
    threshold : float or array-like of shape (n_classes,), default=0.5
        Probability from which a class is predicted present, for all or for each class. A binary
        problem has one, that of the positive class ``classes_[1]``. Not used when the classes
        are mutually exclusive: then the most probable one is predicted.
    min_coverage : float, default=0.0
        Where masks stand for labels, the share of the image that a class has to cover to be
        present. A class without any pixel is never present.
    device : str or torch.device, default="auto"
        Where to compute. "auto" is CUDA if there is a device, the CPU otherwise.
    callbacks : list of skorch callbacks, default=None
        Run in addition to the schedule and early stopping.
    random_state : int, RandomState instance or None, default=None
        Governs initial weights, validation split, batches and dropout. Pass an int for
        reproducible results; ``None`` draws from NumPy's global random state. That of torch is
        left as it was.
    verbose : int, default=0
        With 1, one line per epoch reports the losses.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; the column numbers for multi-label targets.
    net_ : skorch.NeuralNet
        The trained network with its optimiser and history.
    module_ : torch.nn.Module
        The network itself, ``net_.module_``, in evaluation mode.
    history_ : skorch.history.History
        One row per epoch with the losses, ``net_.history``.
    n_channels_in_ : int
        Channels of the training images.
    n_features_in_ : int
        Number of features of flattened training images.
    image_shape_ : tuple of int
        Shape of flattened training images.

    See Also
    --------
    GradCAMFeatureTransformer : Local maps of a classifier.

    Notes
    -----
    Memory grows with the batch, not with the number of images: images stay in their own dtype
    until their batch is made, so that a memory-mapped array larger than memory can be used.

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
        "threshold": [Interval(Real, 0, 1, closed="both"), "array-like"],
        "min_coverage": [Interval(Real, 0, 1, closed="both")],
        "device": [str, torch.device],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        image_shape=None,
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
        threshold=0.5,
        min_coverage=0.0,
        device="auto",
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.image_shape = image_shape
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
        self.threshold = threshold
        self.min_coverage = min_coverage
        self.device = device
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Train the network from new initial weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width), \
                (n_samples, height, width, n_channels) or (n_samples, n_features)
            Images of any real dtype, channels last.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or \
                (n_samples, n_classes, height, width)
            Class labels, an indicator matrix, or masks. Masks are reduced to the labels of the
            classes that cover `min_coverage` of the image; the network never sees where.

        Returns
        -------
        self : MicraNetClassifier

        Raises
        ------
        ValueError
            If X or y are not as described, y holds a single class, or training diverges.
        """
        X = check_images(self, X, reset=True)
        y = self._check_y(X, y)
        if y.ndim == 2 and y.min() == y.max():
            raise ValueError(
                "y must hold images with and images without a class. Got the same labels in all "
                "images and for all classes instead."
            )
        self._set_targets(y)
        self._random_state = check_random_state(self.random_state)
        targets = self._targets.encode(y)
        indicator = self._targets.indicator(y)
        train, valid = split_off_validation(indicator, self.validation_fraction, self._random_state)
        data = self._data(X, targets, train)
        with seeded(self._random_state, resolve_device(self.device)):
            n_batches = len(BatchIterator(data, self.batch_size))
            monitor = "valid_loss" if len(valid) else "train_loss"
            self._initialize_net(training_callbacks(self, n_batches, monitor))
            if len(valid):
                self.net_.train_split = predefined_split(self._data(X, targets, valid))
            self.net_.partial_fit(data, epochs=self.max_epochs)
        self._finish()
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None):
        """Train for one more epoch at `lr`, without schedule, validation or early stopping.

        Parameters
        ----------
        X : array-like
            Images, as in `fit`.
        y : array-like
            Labels or masks, as in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All class labels that will ever be passed. Required in the first call for labels of
            shape (n_samples,).

        Returns
        -------
        self : MicraNetClassifier
        """
        first = not hasattr(self, "net_")
        X = check_images(self, X, reset=first)
        if first and classes is None and are_masks(y):
            classes = [0, 1]  # used if there is a mask of one class only
        y = self._check_y(X, y)
        if first:
            if classes is None and y.ndim == 1:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._set_targets(np.asarray(classes) if y.ndim == 1 else y)
            self._random_state = check_random_state(self.random_state)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"classes must be those of the first call, {self.classes_.tolist()}. Got {classes} "
                "instead."
            )
        self._targets.check(y)
        with seeded(self._random_state, resolve_device(self.device)):
            if first:
                self._initialize_net([])
            self.net_.set_params(lr=self.lr, batch_size=self.batch_size)
            self.net_.partial_fit(
                self._data(X, self._targets.encode(y), np.arange(len(X))), epochs=1
            )
        self._finish()
        return self

    def decision_function(self, X):
        """Return the logits of the classes.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `fit`; their size may differ from that of the training images and, in
            a list, from each other.

        Returns
        -------
        logits : float32 ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
        """
        logits = self._logits(X)
        return logits[:, 0] if self._targets.kind == "binary" else logits

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `decision_function`.

        Returns
        -------
        probabilities : float32 ndarray of shape (n_samples, n_classes)
            In [0, 1]. Rows sum to 1 unless the problem is multi-label.
        """
        logits = self._logits(X)
        return self._targets.probabilities(logits)

    def predict(self, X):
        """Predict the classes that an image contains.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `decision_function`.

        Returns
        -------
        y : ndarray of shape (n_samples,), or (n_samples, n_classes) if multi-label
            Class labels, or an indicator matrix.
        """
        check_is_fitted(self)
        self._targets.check_threshold(self.threshold)  # it may have been set after fit
        logits = self._logits(X)
        return self._targets.decode(self._targets.present(logits, self.threshold))

    def score(self, X, y):
        """Return the accuracy of the predicted labels.

        For multi-label targets this is the share of images whose labels are all right, as
        everywhere in scikit-learn.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `decision_function`.
        y : array-like
            True labels or masks, as in `fit`.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        if are_masks(y):
            y = self._check_y(check_images(self, X, reset=False), y)
            y = self.classes_[y] if self._targets.kind == "binary" else y
        return super().score(X, y)

    @property
    def module_(self):
        return self.net_.module_

    @property
    def history_(self):
        return self.net_.history

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        return tags

    def _check_y(self, X, y):
        """Validate labels; reduce masks to labels, those of a single class to (n_samples,)."""
        if not are_masks(y):
            if isinstance(y, list) and y and np.ndim(y[0]) == 2:
                raise ValueError(
                    "y must be labels or masks. Got positions of objects instead, which a network "
                    "cannot be trained on. Wrap a fitted classifier in a FrozenEstimator to score "
                    "its detections."
                )
            return check_labels(self, X, y)
        size = image_size(X, getattr(self, "image_shape_", None))
        labels = labels_from_masks(check_masks(y, X, size), self.min_coverage)
        return labels[:, 0] if labels.shape[1] == 1 else labels

    def _set_targets(self, y):
        self._targets = Targets(y)
        self.classes_ = self._targets.classes
        self._targets.check_threshold(self.threshold)

    def _data(self, X, targets, indices):
        shape = getattr(self, "image_shape_", None)
        return LabelledImages(X, torch.from_numpy(targets[indices]), shape, indices)

    def _initialize_net(self, callbacks):
        exclusive = self._targets.kind == "multiclass"
        self.net_ = NeuralNet(
            MicraNet,
            module__n_channels=self.n_channels_in_,
            module__n_outputs=self._targets.n_outputs,
            module__n_filters=self.n_filters,
            module__dropout=self.dropout,
            criterion=nn.CrossEntropyLoss if exclusive else nn.BCEWithLogitsLoss,
            optimizer=torch.optim.Adam,
            lr=self.lr,
            batch_size=self.batch_size,
            iterator_train=BatchIterator,
            iterator_train__shuffle=True,
            iterator_valid=BatchIterator,
            train_split=None,
            # Early stopping comes last: callbacks behind it would miss the last epoch's end.
            callbacks=[*(self.callbacks or []), *callbacks],
            device=resolve_device(self.device),
            verbose=int(self.verbose),
        ).initialize()
        self.module_.to(memory_format=torch.channels_last)

    def _finish(self):
        """Forget what belongs to one training only, the validation images above all."""
        self.net_.train_split = None
        self.net_.callbacks = list(self.callbacks or [])
        self.net_.callbacks_ = [
            (name, callback)
            for name, callback in self.net_.callbacks_
            if name not in ("lr_schedule", "early_stopping")
        ]
        self.module_.eval()
        if not all(tensor.isfinite().all() for tensor in self.module_.state_dict().values()):
            del self.net_
            raise ValueError(
                "Training diverged: the weights are not finite any more. Lower lr, or scale the "
                "images, for example to [0, 1]."
            )

    @torch.inference_mode()
    def _logits(self, X):
        check_is_fitted(self)
        X = check_images(self, X, reset=False, allow_ragged=True)
        logits = np.empty((len(X), self._targets.n_outputs), dtype=np.float32)
        self.module_.eval()  # whoever trained net_ directly may have left it in training mode
        device = next(self.module_.parameters()).device
        for start in range(0, len(X), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(X)))
            for part, images in equal_sizes(take(X, rows)):
                images = to_tensor(images, getattr(self, "image_shape_", None)).to(device)
                logits[rows[part]] = self.module_(images).cpu().numpy()
        return logits
