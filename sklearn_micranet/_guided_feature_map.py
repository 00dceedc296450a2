"""GuidedFeatureMap: images to feature maps whose outlines are those of the image."""

from numbers import Integral, Real
from zlib import crc32

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_micranet._stack._numbers import Interval

from ._guided._reader import BOTH, Guide, Reader, one_by_one, survives_half_turn
from ._guided._recipe import learn, survey
from ._labels._labels import read_y
from ._labels._masks import are_masks
from ._network_classifier import classifier_explained_by, forget, routed_to_estimator, router_of
from ._stack._lazy_stack import LazyStack

_N_TURNED = 100  # images, on which it is tried whether the labels survive a half turn


class GuidedFeatureMap(TransformerMixin, MetaEstimatorMixin, BaseEstimator):
    r"""Feature maps with the outlines of the image, from labels of images.

    The last layer of a classifier says where a class is, but not its outline; the image knows the
    outline. What separates the places where a class is seen from background is learned from the
    labels, for each class: its brightness, its texture, or both.

    It is made for structures that stand out by brightness, colour or fine texture. Where none of
    these tells a structure from its surroundings, the paper's map (:class:`PCAFeatureMap`) may be
    better: compare them on a few images with masks.

    Parameters
    ----------
    estimator : MicraNetClassifier, MicraNetEnsemble or TunedThresholdsClassifierCV
        It is cloned and fitted. Wrap a fitted one in :class:`sklearn.frozen.FrozenEstimator` to
        keep its weights. A search or a pipeline that ends in one of these stands for it. What the
        networks of an ensemble see is averaged.
    features : {"auto", "intensity", "texture", "both"}, default="auto"
        What the outlines are taken from.

        - "intensity": each object is cut at `level` between its surroundings and itself, after
          the noise was equalised.
        - "texture": a classifier of pixels, trained by expectation-maximisation. The outline is
          half-way between what it says of typical pixels of the class and of background.
        - "both": as "intensity", inside what the classifier of pixels finds.
        - "auto": for each class what fits its `separation_`: "intensity" from 0.87, "both" from
          0.75, otherwise "texture"; "texture" also where a difference of colours separates best.
    level : float in (0, 1), default=0.6
        Where an outline is drawn between surroundings (0) and object (1), for "intensity" and
        "both". A higher one draws smaller objects. It is a convention, not something that data
        decide.
    classifier : estimator, default=None
        Classifier of pixels, with `fit(X, y, sample_weight)` and `predict_proba`; it is cloned.
        ``None`` is a :class:`sklearn.linear_model.LogisticRegression`.
    n_fit_samples : int, default=300
        Number of images, drawn at random, that `fit` reads after the classifier is fitted.
    memory : str or object with the joblib.Memory interface, default=None
        A folder in which the maps of each image are kept, to be read instead of computed by other
        processes and later runs. They are found by all that they depend on: the network, what was
        learned from labels, the parameters, and the image.
    batch_size : int, default=8
        Number of images read at a time. Memory grows with it, not with the number of images.
    random_state : int, RandomState instance or None, default=None
        Draws the images that `fit` reads, and pixels of them. Pass an int for reproducible results.

    Attributes
    ----------
    estimator_ : estimator instance
        The fitted classifier of images.
    features_ : list of str
        "intensity", "both" or "texture", for each map.
    separation_ : ndarray of shape (n_maps,)
        Area under the ROC curve of the brightness of cells of 8 x 8 px: cells where the class is
        surely seen, against cells without any class. In [0.5, 1]. Of all images together or, if
        that is more, within each image, as of images that were scaled each by itself.
    polarity_ : ndarray of shape (n_maps,)
        1 where the class is brighter than its background, -1 where it is darker, 0 where a
        difference of channels tells them apart.
    channel_weights_ : ndarray of shape (n_maps, n_channels)
        Weights of the channels in the view that separates the class best.
    noise_ : list of NoiseCurve
        For each map, the variance of the noise in that view, ``gain * brightness + offset``.
    ceiling_ : ndarray of shape (n_maps,)
        For each map, how much brighter than background its objects are, in units of that view, if
        all are equally bright where no blur dims them. NaN where they differ, where outlines are
        not taken from brightness alone, and where less than 20 objects were seen besides the
        brightest of each image, which scaling may have made equal.
    area_ : ndarray of shape (n_maps,)
        Mean share of an image in which a class is seen, where it is present.
    is_turned_ : bool
        Whether maps are the mean over the image and its half turn: if the labels of the training
        images survive it, and a class needs the classifier of pixels.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    map_classes_ : ndarray of shape (n_maps,)
        Labels of the classes that have maps, in their order.
    n_features_in_ : int
        Number of features of flattened training images.

    See Also
    --------
    GradCAMFeatureTransformer : Local maps, the first step of the paper's way.
    PCAFeatureMap : Fuses local maps, the second step.
    ThresholdSegmenter : Turns feature maps into masks; use ``method="fixed"``.

    Notes
    -----
    `transform` computes nothing: it returns a stack whose samples are computed when they are read,
    `batch_size` at a time, and not kept. It takes one forward pass of an image, or two, and no
    gradients. `fit` keeps some 0.3 MB of each image that it reads, and takes 13
    bytes for each pixel of one. Large images are computed block
    by block, and their maps lie in temporary files. Memory grows with one image by about 4 bytes
    for each pixel, 8 for each pixel at an outline, 1 for each pixel and present class and, if it
    is not float32, 4 for each of its values.

    The constants, such as those of `features` and `level`, were chosen on training images of
    ``examples/benchmarks/outlines.py`` in the repository, and at first on scored images of the same
    kinds: its scores are optimistic for that reason. Expect less on images that differ from these.

    Blur widens thin structures. With "intensity" it is taken back. Where objects are equally bright
    (`ceiling_`), as ink is, those that blur has dimmed tell by how much they were widened: under a
    blur s, the edge of a stripe of brightness 1 and width w has the brightness
    :math:`\tfrac12 \operatorname{erf}(w / \sqrt2 s)`. Elsewhere blur is measured by the slope of
    outlines, for each image.

    Colour images: pixels are compared in the channel, the mean of channels, or the difference of
    two channels that separates best.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_micranet import GuidedFeatureMap, MicraNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    >>> guided = GuidedFeatureMap(classifier, n_fit_samples=50, random_state=0).fit(X, y)
    >>> guided.transform(X)
    LazyStack(shape=(537, 3, 8, 8), dtype=float32)
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"])],
        "features": [StrOptions({"auto", "intensity", "texture", "both"})],
        "level": [Interval(Real, 0, 1, closed="neither")],
        "classifier": [HasMethods(["fit", "predict_proba"]), None],
        "n_fit_samples": [Interval(Integral, 1, None, closed="left")],
        "memory": [str, HasMethods(["cache"]), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator,
        *,
        features="auto",
        level=0.6,
        classifier=None,
        n_fit_samples=300,
        memory=None,
        batch_size=8,
        random_state=None,
    ):
        self.estimator = estimator
        self.features = features
        self.level = level
        self.classifier = classifier
        self.n_fit_samples = n_fit_samples
        self.memory = memory
        self.batch_size = batch_size
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **fit_params):
        """Fit the classifier, unless it is frozen, and learn what outlines are taken from.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width), \
                (n_samples, height, width, n_channels) or (n_samples, n_features)
            Images of any real dtype, channels last.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or \
                (n_samples, n_classes, height, width)
            Labels or masks, as in :meth:`MicraNetClassifier.fit`. Masks are reduced to labels. With
            a frozen classifier ``None`` stands for the labels that it predicts, and the masks of
            mutually exclusive classes are legal, too: one channel for each class that has a map.
        **fit_params : dict
            Passed to the `fit` of the classifier, such as ``sample_weight``. With scikit-learn's
            metadata routing, what its `set_fit_request` asks for.

        Returns
        -------
        self : GuidedFeatureMap

        Raises
        ------
        TypeError
            If `estimator` is none of those described.
        ValueError
            If X or y are not as described, or nobody has said which of two labels is the
            structure.
        """
        _, classifier = classifier_explained_by(self.estimator)
        if not isinstance(self.estimator, FrozenEstimator):
            classifier._refuse_ambiguous(y)
        forget(self)
        routed = routed_to_estimator(self, fit_params)
        self.estimator_ = clone(self.estimator).fit(X, y, **routed)
        reader, images = self._read(X)
        present = None if y is None else self._present(reader.explained.targets, images, y)
        self._learn(reader, images.stack, present)
        return self

    def _read(self, X):
        """Return a reader of images, and the images, after the steps before the classifier."""
        steps, classifier = classifier_explained_by(self.estimator_)
        explained = classifier._explained()
        explained.targets.check_maps()
        for step in steps:
            X = step.transform(X)
        return Reader(explained), classifier._read_images(X)

    def _present(self, targets, images, y):
        """Return which classes with maps labels say are present, bool of (n_samples, n_maps)."""
        if are_masks(y) and targets.kind == "multiclass":  # they leave nothing to exclude
            return self._present_of_masks(len(targets.map_outputs), images, y)
        _, classifier = classifier_explained_by(self.estimator_)
        present = targets.indicator(classifier._read_labels(images, y).y)
        columns = [targets.positive] if targets.kind == "binary" else targets.map_outputs
        return present[:, columns]

    def _present_of_masks(self, n_maps, images, masks):
        present = read_y(masks, images, name=type(self).__name__).reshape(len(images), -1)
        if present.shape[1] != n_maps:
            raise ValueError(
                f"Masks must have one channel for each class that has a map, {n_maps} in all. Got "
                f"{present.shape[1]} instead."
            )
        return present.astype(bool)

    def _learn(self, reader, stack, present):
        rng = check_random_state(self.random_state)
        rows = np.sort(rng.permutation(len(stack))[: self.n_fit_samples])
        seed = int(rng.randint(np.iinfo(np.int32).max))
        labels = None if present is None else present[rows]
        first = None if present is None else labels[:_N_TURNED]
        tried = one_by_one(stack, rows[:_N_TURNED], self.batch_size)
        is_turned = survives_half_turn(reader, tried, first)
        if is_turned:
            reader = reader.turned(BOTH)
        images = one_by_one(stack, rows, self.batch_size)
        recipe = learn(
            list(_surveys(reader, images, labels, seed)),
            self.classifier or LogisticRegression(max_iter=200),
            features=self.features,
        )
        self._recipe = recipe
        self.is_turned_ = is_turned and recipe.pixels is not None
        self.features_ = list(recipe.modes)
        self.separation_ = recipe.separation
        self.channel_weights_ = recipe.views
        self.polarity_ = np.sign(recipe.views.sum(axis=1).round(6)).astype(int)
        self.noise_ = list(recipe.noise)
        self.ceiling_ = recipe.ceiling
        self.area_ = recipe.area

    def transform(self, X):
        """Return the feature maps, computed when they are read.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `fit`; their size may differ from that of the training images and, in
            a list, from each other.

        Returns
        -------
        feature_maps : LazyStack of shape (n_samples, n_maps, height, width)
            Of dtype float32, in [0, 1]: 0.5 is the outline. Zero for classes predicted absent.
            Its ``class_names`` are those of `map_classes_`. A sequence of arrays of shape (n_maps,
            height, width) if the images differ in size.
        """
        self._validate_params()
        check_is_fitted(self)
        reader, images = self._read(X)
        if self.is_turned_:
            reader = reader.turned(BOTH)
        targets = reader.explained.targets
        maps = LazyStack(
            images.stack,
            Guide(reader, self._recipe, self.level),
            item_shape=images.size and (len(targets.map_outputs), *images.size),
            batch_size=images.batch_size(self.batch_size, len(targets.map_outputs)),
            memory=self.memory,
        )
        maps.class_names = tuple(targets.map_classes.tolist())
        return maps

    def __sklearn_is_fitted__(self):
        return hasattr(self, "area_")  # the last that is learned

    def get_metadata_routing(self):
        """Return how parameters of `fit` travel on to `estimator`.

        Returns
        -------
        routing : MetadataRouter
        """
        return router_of(self)

    @property
    def map_classes_(self):
        check_is_fitted(self)
        return classifier_explained_by(self.estimator_)[1].map_classes_

    @property
    def classes_(self):
        return self.estimator_.classes_

    @property
    def n_features_in_(self):
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        return self.estimator_.feature_names_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = not isinstance(self.estimator, FrozenEstimator)
        tags.transformer_tags.preserves_dtype = []
        return tags


def _surveys(reader, images, labels, seed):
    """Yield what is kept of each image; without labels the predicted ones stand for them."""
    for i, image in enumerate(images):
        image = reader.as_image(image)
        reading = reader(image)
        if labels is not None:
            reading = reading._replace(present=labels[i])
        # Pixels are drawn by the content of an image, so that the order of images plays no part.
        rng = np.random.default_rng([seed, crc32(np.ascontiguousarray(image))])
        yield survey(image, reading, rng)
