"""What the displays ask of estimators."""

import numpy as np
from sklearn.pipeline import Pipeline


def respond(estimator, X, response_method):
    """Return what a method of an estimator, or of the last step of a pipeline, gives for `X`."""
    if isinstance(estimator, Pipeline) and not hasattr(estimator, response_method):
        X, estimator = estimator[:-1].transform(X), estimator[-1]
    if not hasattr(estimator, response_method):
        raise TypeError(
            f"estimator must have the method {response_method}. "
            f"Got {type(estimator).__name__} instead."
        )
    return getattr(estimator, response_method)(X)


def map_names(estimator, n_maps=None):
    """Return the labels of the classes that have maps, or None if the estimator lacks them.

    Where it has labels of classes only, they are those of the maps if there are as many.
    """
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else []
    for part in (*steps, estimator):
        names = getattr(part, "map_classes_", None)
        if names is None and n_maps is not None:
            names = getattr(part, "classes_", None)
        if names is not None and len(names) == (n_maps or len(names)):
            return [str(name) for name in names]
    return None


def check_names(class_names, n_maps):
    """Return the name of each map; "class 0", "class 1", ... if there are none."""
    if class_names is None:
        return [f"class {k}" for k in range(n_maps)]
    names = [str(name) for name in np.ravel(class_names)]
    if len(names) != n_maps:
        raise ValueError(
            f"class_names must hold one name for each of the {n_maps} maps. "
            f"Got {len(names)} instead."
        )
    return names
