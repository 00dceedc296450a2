"""FieldSegmenter: whole fields of view, window by window, with what windows share computed once."""

from functools import partial
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_micranet._stack._numbers import Interval

from ._fields._grid import WindowGrid, bands_of, step_of
from ._fields._heads import choose_windows, fit_head, read_with_halo
from ._fields._objects import FieldObjects, Window
from ._fields._progress import progress
from ._fields._proposals import proposal_table
from ._fields._scaling import check_scale, scaled_fields
from ._fields._scores import Shared, exact_logits, shared_logits
from ._fields._sources import open_fields
from ._fields._stores import check_out, is_path, write_array, write_image
from ._fields._windows import (
    ScaledNetworks,
    fit_with_groups,
    logits_of_windows,
    network_key,
    output_probabilities,
    pieces_of_windows,
    step_key,
)
from ._hungarian_detector import HungarianDetector
from ._intensity_scaler import IntensityScaler
from ._labels._splits import check_groups
from ._network._shape import STRIDE
from ._network._tiles import HALO
from ._network._windows import WindowNetworks
from ._network_classifier import classifier_explained_by, forget
from ._stack._files import atomic_folder
from ._stack._keys import key_of
from .images import extract_crops
from .images._instances import as_table
from .images._ome_zarr import CHUNK, OmeZarrImage, n_levels_of

_POINTWISE = ("dtype", "training_range")  # methods that scale a pixel whatever the others are
_WINDOWS_AT_ONCE = 8
_NO_HEADS = (
    "exact=False requires the linear layer that fit learns for shared features. Got %(name)s "
    "fitted with exact=True instead: call fit again."
)


class FieldSegmenter(MetaEstimatorMixin, BaseEstimator):
    r"""Find and segment sparse objects in fields of view of any size.

    The network sweeps the field [1]_: it scores every window of a grid. `propose` ranks the windows
    for an expert; maps, masks and objects are computed for windows with a class only, and put
    together, so that an object is neither cut nor counted twice.

    Parameters
    ----------
    estimator : MicraNetClassifier, MicraNetEnsemble, or a pipeline with one of these
        It is cloned and fitted on the windows. Wrap a fitted classifier in
        :class:`sklearn.frozen.FrozenEstimator` to keep its weights. `predict`, `predict_instances`
        and `detect` need a pipeline that ends in a step that segments; a
        :class:`HungarianDetector` after it is left out.
    size : int
        Side of a window, px: the size of the images that the network is trained on. A multiple of 8
        unless `exact`.
    step : int, default=None
        Distance between neighbouring windows, px, at most `size` and a multiple of 8 unless
        `exact`. ``None`` is half of `size`, rounded up to a multiple of 8: every object of up to
        half a window is whole in one of them.
    annotation : {"masks", "boxes", "points"}, default="masks"
        What `y` is in `fit`, as in :func:`~sklearn_micranet.images.extract_crops`. Instance labels
        are masks.
    scaler : IntensityScaler, default=None
        Scales each field by the intensities of the whole field, before windows are cut. Its
        method is "minmax", "standard" or "percentile". A scaler inside `estimator` scales each
        window by itself, in training and later.
    exact : bool, default=False
        Whether to cut out every window and score it by itself, see Notes.
    pixel_size : float, default=None
        Side of a pixel of the training fields, in any unit. It is kept with the estimator: fields
        said to have another pixel size, by more than 1 %, are refused with the factor by which to
        rescale them. They are never rescaled in silence, as what an expert inspects and counts are
        the pixels that were recorded.
    tile_size : int, default=512
        Side of the squares that are read, computed and written at a time, px. Memory grows with
        it.
    memory : str or object with the joblib.Memory interface, default=None
        A folder in which what is computed of each tile and of each batch of windows is kept, found
        by the pixels, the weights and the parameters. A sweep that was interrupted goes on with
        the first tile that was not finished.
    n_jobs : int, default=None
        Number of tiles that are computed at the same time. ``None`` is 1 unless in a
        :obj:`joblib.parallel_config` context. By threads, which share the weights, unless that
        context names another backend, such as "loky" or "dask". Each job uses the threads of
        torch: with several jobs, ``torch.set_num_threads(1)`` leaves one to each.
    n_fit_samples : int, default=512
        Number of windows that the shared scores are fitted to, see Notes. ``None`` leaves the
        linear layer of the network as it is.
    random_state : int, RandomState instance or None, default=None
        Governs which windows these are.
    verbose : int, default=0
        Whether to show a progress bar, which needs tqdm.

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    size_ : int
        `size` of the training.
    pixel_size_ : float or None
        `pixel_size` of the training.
    scaler_ : IntensityScaler or None
        A copy of the `scaler` of the training.
    heads_ : list of Head
        Linear layer of the shared features of each network, unless `exact`.
    shared_r2_ : ndarray of shape (n_networks, n_outputs)
        How near the shared logits come to those of the windows alone, unless `exact` or
        ``n_fit_samples=None``: the share of their variance that is explained, at most 1, of each
        window by the others.

    See Also
    --------
    sklearn_micranet.images.extract_crops : The windows as images.
    sklearn_micranet.metrics.inspection_curve : Recall against the area inspected.

    Notes
    -----
    **Fields** are arrays of shape (height, width) or (height, width, n_channels): in memory,
    memory-mapped, of Zarr, HDF5 or Dask; or paths of TIFF files and of the folders of Zarr arrays
    and OME-Zarr images. They are read tile by tile, those of several levels at full resolution or
    at the one that is named (``"a.ome.zarr/1"``); several planes other than channels are refused.
    Beyond the border a field is mirrored.

    **Shared and exact scores.** The network is convolutional up to its global maximum. Its last
    layer is computed once for each pixel of the field, and the logits of a window are a linear
    layer of the maxima over the window. A window that is cut out differs in one respect: each of
    the convolutions pads it with zeros, which changes the last layer up to 30 px from its border.
    Sharing sees the pixels around the window instead. What the network has learned of the zeros
    is made up for in the linear layer: `fit` sweeps the fields, cuts out `n_fit_samples` windows,
    half of them those of the highest scores, and fits what their logits differ by (ridge
    regression); `shared_r2_` says how well. The smaller the windows, the more is left.
    ``exact=True`` gives the scores that the classifier has for each window alone, at the price of
    a forward pass for each; it is needed too if a step before the network scales each window by
    itself.

    **Memory** does not grow with the height of a field, apart from the scores and the objects
    found. Tiles of 512 px and 16 filters at depth 1 take 0.1 GiB; in addition, rows of windows
    are put together from features of 4 bytes per filter of the last layer and block, the squares
    that `size` and `step` have in common.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet import FieldSegmenter, MicraNetClassifier
    >>> rng = np.random.default_rng(0)
    >>> field = rng.random((128, 192), dtype=np.float32)
    >>> field[40:60, 100:120] += 2
    >>> classifier = MicraNetClassifier(n_filters=4, max_epochs=10, lr=0.01, random_state=0)
    >>> segmenter = FieldSegmenter(classifier, size=32, annotation="boxes")
    >>> segmenter.fit([field], [[(40, 100, 60, 120)]]).predict_proba_map([field])[0].shape
    (7, 11, 2)
    >>> table = segmenter.propose([field], n_windows=2, as_frame=False)
    >>> table["inspected"].round(3).tolist()
    [0.042, 0.083]
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"])],
        "size": [Interval(Integral, 1, None, closed="left")],
        "step": [Interval(Integral, 1, None, closed="left"), None],
        "annotation": [StrOptions({"masks", "boxes", "points"})],
        "scaler": [IntensityScaler, None],
        "exact": ["boolean"],
        "pixel_size": [Interval(Real, 0, None, closed="neither"), None],
        "tile_size": [Interval(Integral, 1, None, closed="left")],
        "memory": [str, HasMethods(["cache"]), None],
        "n_jobs": [Integral, None],
        "n_fit_samples": [Interval(Integral, 2, None, closed="left"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        *,
        size,
        step=None,
        annotation="masks",
        scaler=None,
        exact=False,
        pixel_size=None,
        tile_size=512,
        memory=None,
        n_jobs=None,
        n_fit_samples=512,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.size = size
        self.step = step
        self.annotation = annotation
        self.scaler = scaler
        self.exact = exact
        self.pixel_size = pixel_size
        self.tile_size = tile_size
        self.memory = memory
        self.n_jobs = n_jobs
        self.n_fit_samples = n_fit_samples
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, fields, y=None, *, groups=None):
        """Fit the estimator on the windows of fields.

        Parameters
        ----------
        fields : sequence of n_fields arrays of shape (height, width[, n_channels]), or of paths
            The fields, see Notes.
        y : sequence of n_fields masks, boxes or points, default=None
            What `annotation` says, as in :func:`~sklearn_micranet.images.extract_crops`. The
            network sees which classes a window contains, never where. ``None`` if the estimator
            is frozen.
        groups : array-like of shape (n_fields,), default=None
            Windows of the fields of one group, such as those of one slide, are together either
            trained on or monitored. ``None`` makes each field a group; a single field is split into
            up to ten bands across its longer side. Windows that show pixels of what is monitored
            are not trained on, unless a class would be lost. Nothing is monitored, with a warning,
            if too few groups hold a class.

        Returns
        -------
        self : FieldSegmenter

        Raises
        ------
        ValueError
            If fields, y and parameters do not fit each other.
        TypeError
            If `estimator` is none of those described.
        """
        image_steps, _, _ = _parts(self.estimator)
        if not self.exact:
            _check_pointwise(image_steps)
        scaler = None if self.scaler is None else clone(self.scaler)
        fields = scaled_fields(open_fields(fields, self.size), scaler)
        given = {} if y is None else {self.annotation: y}
        crops = extract_crops(
            fields,
            size=self.size,
            step=step_of(self.size, self.step, STRIDE, exact=self.exact),
            **given,
        )
        forget(self)
        self.size_, self.pixel_size_, self.scaler_ = self.size, self.pixel_size, scaler
        # Windows of one field are alike: they are not to be monitored by others of it.
        if groups is not None:
            groups = check_groups(groups, len(fields))[crops.groups]
        elif len(fields) == 1:
            groups = bands_of(crops.positions[:, 1:])
        else:
            groups = crops.groups
        estimator = clone(self.estimator)
        self.estimator_ = fit_with_groups(estimator, crops.images, crops.labels, groups)
        if not self.exact:
            self._fit_heads(fields)
        return self

    def decision_map(self, fields, *, pixel_size=None):
        """Return the logits of the windows of each field.

        Parameters
        ----------
        fields : sequence of n_fields arrays or paths
            As in `fit`.
        pixel_size : float, default=None
            Side of their pixels, in the unit of that of the training. ``None`` means the same.

        Returns
        -------
        logits : list of n_fields float32 ndarray of shape (n_rows, n_columns, n_classes)
            Of a binary problem (n_rows, n_columns). Window (i, j) starts at row i * step and column
            j * step of its field.
        """
        logits = [of_field for _, _, of_field in self._sweep(fields, pixel_size)]
        is_binary = self._explained().targets.kind == "binary"
        return [of_field[..., 0] for of_field in logits] if is_binary else logits

    def predict_proba_map(self, fields, *, pixel_size=None):
        """Return the probabilities of the windows of each field.

        Parameters
        ----------
        fields : sequence of n_fields arrays or paths
            As in `fit`.
        pixel_size : float, default=None
            As in `decision_map`.

        Returns
        -------
        probabilities : list of n_fields float32 ndarray of shape (n_rows, n_columns, n_classes)
            In [0, 1]. Window (i, j) starts at row i * step and column j * step of its field.
        """
        targets = self._explained().targets
        return [
            targets.probabilities(logits.reshape(-1, targets.n_outputs)).reshape(
                *logits.shape[:2], -1
            )
            for _, _, logits in self._sweep(fields, pixel_size)
        ]

    def propose(
        self,
        fields,
        *,
        map_index=None,
        n_windows=None,
        max_overlap=0.0,
        as_frame="auto",
        pixel_size=None,
    ):
        """Rank windows by their score, for an expert to inspect.

        Parameters
        ----------
        fields : sequence of n_fields arrays or paths
            As in `fit`.
        map_index : int, default=None
            Class to look for. ``None`` ranks by the most probable one.
        n_windows : int, default=None
            Largest number of windows.
        max_overlap : float, default=0.0
            Share of a window that may be part of windows of a better rank, in [0, 1). With 0 no
            two windows overlap, and what lies between them is never proposed.
        as_frame : bool or "auto", default="auto"
            Whether the table is a DataFrame; ``"auto"`` makes it one where pandas is installed.
        pixel_size : float, default=None
            As in `decision_map`.

        Returns
        -------
        table : pandas.DataFrame, or dict of ndarray of shape (n_proposals,)
            One row per window, the highest score first:

            field, first_row, first_column, end_row, end_column
                Index of the field, and the window in it, px.
            map_index, score
                The class and its probability.
            area, inspected
                What is new in the window, px², and the share of the area of all fields that was
                inspected after it.
        """
        swept = list(self._sweep(fields, pixel_size))
        targets = self._explained().targets
        n_maps = len(targets.map_outputs)
        if not (map_index is None or 0 <= map_index < n_maps):
            raise ValueError(
                f"map_index must be None or from 0 to {n_maps - 1}. Got {map_index} instead."
            )
        if not 0 <= max_overlap < 1:
            raise ValueError(f"max_overlap must be in [0, 1). Got {max_overlap} instead.")
        scores = [output_probabilities(targets, logits) for _, _, logits in swept]
        grids = [grid for _, grid, _ in swept]
        table = proposal_table(scores, grids, map_index, max_overlap, n_windows)
        return as_table(table, as_frame)

    def predict(self, fields, *, out=None, pixel_size=None):
        """Return the masks of each field.

        Parameters
        ----------
        fields : sequence of n_fields arrays or paths
            As in `fit`.
        out : sequence of n_fields arrays of shape (n_maps, height, width), or paths, default=None
            Where to write: memory-mapped arrays, Zarr or HDF5 arrays, or names of new folders that
            end in ``.zarr``: OME-Zarr images with the field and a label image per class, in levels
            down to 1,024 px. Of Zarr, chunks without any object are not written. ``None``
            allocates arrays.
        pixel_size : float, default=None
            As in `decision_map`.

        Returns
        -------
        masks : list of n_fields bool ndarray of shape (n_maps, height, width), or `out`
        """
        return list(self._write(fields, out, bool, pixel_size))

    def predict_instances(self, fields, *, out=None, pixel_size=None):
        """Return the objects of each field as numbers.

        Parameters
        ----------
        fields : sequence of n_fields arrays or paths
            As in `fit`.
        out : sequence of n_fields arrays of shape (n_maps, height, width), or paths, default=None
            Where to write: memory-mapped arrays, Zarr or HDF5 arrays, or names of new folders that
            end in ``.zarr``: OME-Zarr images with the field and a label image per class, in levels
            down to 1,024 px. Of Zarr, chunks without any object are not written. ``None``
            allocates arrays.
        pixel_size : float, default=None
            As in `decision_map`.

        Returns
        -------
        instances : list of n_fields int32 ndarray of shape (n_maps, height, width), or `out`
            0 is background; the objects of each map are numbered from 1 on.
        """
        return list(self._write(fields, out, np.int32, pixel_size))

    def detect(self, fields, *, pixel_size=None):
        """Return where the objects of each field are; no array of its size is made.

        Parameters
        ----------
        fields : sequence of n_fields arrays or paths
            As in `fit`.
        pixel_size : float, default=None
            As in `decision_map`.

        Returns
        -------
        detections : list of n_fields float64 ndarray of shape (n_detections, 4)
            Map index, row and column (of the centroid, px; the centre of the top-left pixel is
            (0, 0)) and score, the highest probability of a window that shows the object.
        """
        return [objects.table[:, :4] for _, objects in self._objects(fields, pixel_size)]

    def _explained(self):
        check_is_fitted(self, "estimator_")
        return _parts(self.estimator_)[1]._explained()

    # --- sweeping -------------------------------------------------------------------------

    def _sweep(self, fields, pixel_size):
        """Yield each field, its grid and the logits of its windows."""
        check_is_fitted(self, "estimator_")
        self._validate_params()
        check_scale(pixel_size, self.pixel_size_)
        step = step_of(self.size_, self.step, STRIDE, exact=self.exact)
        image_steps, classifier, _ = _parts(self.estimator_)
        fields = scaled_fields(open_fields(fields, self.size_), self.scaler_)
        for field in fields:  # before the first is swept
            _check_channels(field, self.size_, image_steps, classifier)
        if not self.exact:
            _check_pointwise(image_steps)
        for field in fields:
            grid = WindowGrid(tuple(field.shape[:2]), self.size_, step)
            yield field, grid, self._logits_of(field, grid, image_steps, classifier)

    def _logits_of(self, field, grid, image_steps, classifier):
        if self.exact:
            logits_of = partial(logits_of_windows, image_steps, classifier)
            sweep = partial(exact_logits, logits_of=logits_of, n_at_once=_WINDOWS_AT_ONCE)
        else:
            check_is_fitted(self, "heads_", msg=_NO_HEADS)
            networks = WindowNetworks(classifier._explained().networks)
            networks = ScaledNetworks(image_steps, networks, self.heads_)
            sweep = partial(shared_logits, networks=networks, halo=HALO, tile_size=self.tile_size)
        return self._swept(field, grid, sweep, image_steps, classifier)

    def _swept(self, field, grid, sweep, image_steps, classifier):
        """Return the logits of all windows, of the mean of the networks."""
        explained = classifier._explained()
        kept_in = {"memory": self.memory}
        if self.memory is not None:
            kept_in["key"] = key_of(network_key(explained), [step_key(s) for s in image_steps])
        found = []
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        with progress(grid.n_windows[0], "rows of windows", self.verbose) as advance:
            for strip in sweep(field, grid, parallel=parallel, **kept_in):
                shape = strip[0].shape
                logits = [of_net.reshape(-1, shape[2]) for of_net in strip]
                found.append(explained.targets.mean_logits(logits).reshape(shape))
                advance(shape[0])
        return np.concatenate(found)

    def _fit_heads(self, fields):
        """Fit the linear layers of the shared features to the logits of windows cut out."""
        image_steps, classifier, _ = _parts(self.estimator_)
        networks = ScaledNetworks(image_steps, WindowNetworks(classifier._explained().networks))
        self.heads_ = networks.heads
        if self.n_fit_samples is None:
            return
        sweep = partial(shared_logits, networks=networks, halo=HALO, tile_size=self.tile_size)
        step = step_of(self.size_, self.step, STRIDE, exact=self.exact)
        grids = [WindowGrid(tuple(f.shape[:2]), self.size_, step) for f in fields]
        windows, scores = [], []
        for field, grid in zip(fields, grids, strict=True):
            logits = self._swept(field, grid, sweep, image_steps, classifier)
            scores.append(logits.max(axis=2).ravel())
            windows += [(field, grid.corner(index)) for index in range(scores[-1].size)]
        random_state = check_random_state(self.random_state)
        chosen = choose_windows(np.concatenate(scores), self.n_fit_samples, random_state)
        shared, cut, inside = [], [], slice(HALO, -HALO)
        for i in chosen:
            tile = read_with_halo(*windows[i], self.size_, HALO)
            shared.append(networks.block_features(tile, self.size_)[0, 0])
            cut.append(networks.crop_features(tile[inside, inside]))
        logits = networks.logits(np.stack(cut))
        parts = networks.split(np.stack(shared))
        fits = [fit_head(*of_net) for of_net in zip(networks.heads, parts, logits, strict=True)]
        self.heads_ = [head for head, _ in fits]
        self.shared_r2_ = np.array([r2 for _, r2 in fits])

    # --- objects --------------------------------------------------------------------------

    def _objects(self, fields, pixel_size):
        """Yield the grid and the objects of each field."""
        check_is_fitted(self, "estimator_")
        image_steps, _, pipeline = _parts(self.estimator_)
        if pipeline is None:
            raise TypeError(
                "Masks and objects need an estimator that ends in a step that segments, such as a "
                "pipeline with a ThresholdSegmenter. Got "
                f"{type(self.estimator_).__name__} instead."
            )
        explained = self._explained()
        targets, key = explained.targets, None
        if self.memory is not None:
            steps = [*image_steps, *(step for _, step in pipeline.steps)]
            present = targets.kind, np.asarray(explained.threshold, dtype=float)
            key = key_of(network_key(explained), present, [step_key(step) for step in steps])
        for field, grid, logits in self._sweep(fields, pixel_size):
            flat = logits.reshape(-1, targets.n_outputs)
            present = targets.present(flat, explained.threshold)[:, targets.map_outputs]
            positive = np.flatnonzero(present.any(axis=1))
            scores = output_probabilities(targets, flat)
            batches = np.split(positive, range(_WINDOWS_AT_ONCE, len(positive), _WINDOWS_AT_ONCE))
            batches = batches if len(positive) else []
            with progress(len(positive), "windows with a class", self.verbose) as advance:
                windows, shared = [], Shared(field, pipeline)
                parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
                tasks = (
                    delayed(pieces_of_windows)(
                        shared, grid, batch, targets.n_outputs, self.memory, key
                    )
                    for batch in batches
                )
                for batch, found in zip(batches, parallel(tasks), strict=True):
                    windows += [
                        Window(grid.corner(index), scores[index], pieces)
                        for index, pieces in zip(batch, found, strict=True)
                    ]
                    advance(len(batch))
            yield grid, FieldObjects(windows, grid, len(targets.map_outputs), self.tile_size)

    def _write(self, fields, out, dtype, pixel_size):
        targets = self._explained().targets
        n_maps, fields = len(targets.map_outputs), open_fields(fields, self.size_)
        out = check_out(out, fields, n_maps, dtype)
        for field, target, (grid, objects) in zip(
            fields, out, self._objects(fields, pixel_size), strict=True
        ):
            if is_path(target):
                self._write_ome_zarr(target, field, objects, dtype)
                yield target
            else:
                yield write_array(objects, grid, target, dtype, self.tile_size)

    def _write_ome_zarr(self, path, field, objects, dtype):
        is_mask = dtype is bool
        with atomic_folder(path) as part:
            written = OmeZarrImage(
                part,
                shape=field.shape,
                dtype=field.dtype,
                names=[str(label) for label in self._explained().targets.map_classes],
                label_dtype=np.uint8 if is_mask else dtype,
                n_levels=n_levels_of(field.shape),
                pixel_size=self.pixel_size_,
            )
            write_image(written.image, written.labels, field, objects, CHUNK, as_masks=is_mask)
            highest = objects.n_objects.clip(max=1) if is_mask else objects.n_objects
            written.finish([range(1, n + 1) for n in highest])

    @property
    def classes_(self):
        return _parts(self.estimator_)[1].classes_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = not isinstance(self.estimator, FrozenEstimator)
        return tags


def _parts(estimator):
    """Return the steps before the network, the classifier, and a pipeline that segments or None."""
    if isinstance(estimator, FrozenEstimator):
        return _parts(estimator.estimator)
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        return _parts(getattr(estimator, "best_estimator_", estimator.estimator))
    if not isinstance(estimator, Pipeline) or hasattr(estimator[-1], "_explained"):
        return *classifier_explained_by(estimator), None
    for i, (_, step) in enumerate(estimator.steps):
        inner = getattr(step, "estimator_", getattr(step, "estimator", None))
        if inner is not None:
            steps, classifier = classifier_explained_by(inner)
            ends_in_detector = isinstance(estimator[-1], HungarianDetector)
            pipeline = estimator[:-1] if ends_in_detector else estimator
            before = [s for _, s in estimator.steps[:i]]
            segments = len(pipeline) > i + 1 and hasattr(pipeline[-1], "predict")
            return [*before, *steps], classifier, pipeline if segments else None
    return *classifier_explained_by(estimator), None


def _check_channels(field, size, image_steps, classifier):
    """Raise an error unless the classifier takes windows of a field."""
    window = np.zeros((1, size, size, *field.shape[2:]), dtype=field.dtype)
    for step in image_steps:
        window = step.transform(window)
    classifier._read_images(window)


def _check_pointwise(steps):
    for step in steps:
        if not isinstance(step, IntensityScaler) or step.method not in _POINTWISE:
            got = repr(step) if isinstance(step, IntensityScaler) else type(step).__name__
            raise ValueError(
                "Steps before the network must scale a pixel whatever the others are, as "
                f"IntensityScaler does with the methods {_POINTWISE}. Got {got} instead, which may "
                "treat each window in its own way: pass an IntensityScaler as the scaler of "
                "FieldSegmenter, one for each field, or set exact=True to cut every window."
            )
