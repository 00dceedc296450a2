"""Outlines of structures that differ from their surroundings by texture.

A classifier of pixels, trained by expectation-maximisation from where the gates say that a class
may be, and from where labels say that it is not.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ._gate import DENSE_FROM, enlarge, exponents, prior
from ._near import edge_of, grow

_EPSILON = 1e-6
_BAND = 3  # px on each side of an outline; chosen on training images of textures and of DIC cells


class Scale(NamedTuple):
    """What features of pixels are of."""

    n_layers: int  # from the highest resolution
    sigma: float  # px, of the Gaussian that smooths them
    n_components: int
    of_evidence: float  # px, of the Gaussian that smooths the logarithms of likelihoods


# Fine features leave outlines sharp; where a class fills much of an image, wide ones leave no holes
# in it. Chosen on training images of textures, and of DIC cells.
FINE, WIDE = Scale(2, 0.7, 10, 1.5), Scale(3, 2.0, 12, 4.0)


def pixel_features(activations, size, scale):
    """Return smoothed activations at full size.

    Parameters
    ----------
    activations : list of ndarray of shape (n_filters, height / f, width / f)
        Of layers whose pixels cover f = 1, 2, 4 px of the image; sides rounded up.
    size : tuple of int
        Height and width of the image, in px.
    scale : Scale

    Returns
    -------
    features : float32 ndarray of shape (n_features, height, width)
    """
    return np.concatenate(
        [
            layer_features(activation, 2**i, size, scale.sigma)
            for i, activation in enumerate(activations[: scale.n_layers])
        ]
    )


def layer_features(activation, factor, size, sigma):
    """Return the smoothed activations of a layer whose pixels cover `factor` px, at full size."""
    width = sigma / factor
    smooth = ndimage.gaussian_filter(activation, (0, width, width), truncate=3)
    return enlarge(smooth, factor, size)


def with_background(prior):
    """Append the probability of background, 1 - sum, to priors of shape (n_pixels, n_classes)."""
    return np.column_stack([prior, 1 - prior.sum(axis=1)])


def expectation_maximisation(classifier, features, prior, *, n_rounds=3):
    """Train a classifier of pixels on soft labels, and infer these anew, several times.

    Parameters
    ----------
    classifier : estimator
        With `fit(X, y, sample_weight)` and `predict_proba`; it is cloned.
    features : ndarray of shape (n_pixels, n_features)
    prior : ndarray of shape (n_pixels, n_classes + 1)
        Rows sum to 1; 0 for the classes that are absent from the image of a pixel. Background is
        the last.
    n_rounds : int, default=3
        At most; a round that would lower the objective is the end.

    Returns
    -------
    classifier : estimator
        Fitted.
    share : ndarray of shape (n_classes + 1,)
        Of the pixels it was trained on, by which its probabilities have to be divided to be
        likelihoods.
    objective : list of float
        Mean log-likelihood of the labels of images, after each round.
    """
    posterior, objective = prior, []
    for _ in range(n_rounds):
        new_share = posterior.mean(axis=0) + _EPSILON
        new_share /= new_share.sum()
        fitted = _fit_soft(clone(classifier), features, posterior)
        joint = prior * likelihood(fitted, features, new_share)
        total = np.maximum(joint.sum(axis=1, keepdims=True), _EPSILON)
        value = float(np.log(total).mean())
        if objective and value < objective[-1]:
            break
        objective.append(value)
        best, share = fitted, new_share
        posterior = joint / total
    return best, share, objective


def _fit_soft(classifier, features, posterior):
    """Fit soft labels: each pixel counts once for each class, with the probability of it."""
    pixel, label = np.nonzero(posterior > 0.01)
    if (label == label[0]).all():  # nothing but background: there is nothing to tell apart
        classifier = DummyClassifier()
    return classifier.fit(features[pixel], label, sample_weight=posterior[pixel, label])


def likelihood(classifier, features, share):
    """Return P(class | features) / P(class), shape (n_pixels, n_classes + 1)."""
    ratio = np.zeros((len(features), len(share)))
    ratio[:, classifier.classes_] = classifier.predict_proba(features)
    return ratio / share


def middle_of_evidence(likelihood, belief):
    """Return the evidence half-way between typical pixels of a class and of background.

    Where both are seen, features change from the ones to the others, and half-way lies the outline.
    The evidence of 0, where fewest pixels are wrong, lies nearer to those that are more alike.

    Parameters
    ----------
    likelihood, belief : ndarray of shape (n_pixels, n_classes + 1)
        Background is the last.

    Returns
    -------
    middle : float32 ndarray of shape (n_classes,)
        Of the logarithm of the likelihood of the class against that of background, which is above
        0 for typical pixels of the class, and below for those of background; where it is not, the
        middle is 0.
    """
    posterior = likelihood * belief
    posterior /= np.maximum(posterior.sum(axis=1, keepdims=True), _EPSILON)
    logarithm = np.log(likelihood + _EPSILON)
    middle = np.zeros(likelihood.shape[1] - 1, np.float32)
    for k in range(len(middle)):
        evidence = logarithm[:, k] - logarithm[:, -1]
        inside, outside = (_median(evidence, posterior[:, side]) for side in (k, -1))
        if outside < 0 < inside:
            middle[k] = (inside + outside) / 2
    return middle


def _median(values, weights):
    """Return the weighted median, 0 if nothing has a weight."""
    if not weights.any():
        return 0.0
    return np.quantile(values, 0.5, weights=weights, method="inverted_cdf")


def _bayes(belief, background, evidence):
    """Return the posterior of classes; the likelihood of background is the last of `evidence`."""
    joint = belief * evidence[:-1]
    return joint / (joint.sum(axis=0) + background * evidence[-1])


class PixelModel:
    """Probability of the classes at each pixel, from activations and the gate.

    Parameters
    ----------
    classifier : estimator
        With `fit(X, y, sample_weight)` and `predict_proba`.
    scale : Scale
        Of the features.
    """

    def __init__(self, classifier, scale):
        self.classifier = classifier
        self.scale = scale

    def fit(self, features, gate, present, area):
        """Learn from pixels of images whose labels are known.

        Parameters
        ----------
        features : ndarray of shape (n_pixels, n_features)
        gate : ndarray of shape (n_pixels, n_classes)
        present : bool ndarray of shape (n_pixels, n_classes)
            Labels of the image of each pixel.
        area : ndarray of shape (n_classes,)
            Share of an image that a class fills where it is present.
        """
        self.area, (in_fit, _) = area, exponents(area)
        n_components = min(self.scale.n_components, *features.shape)
        self.whiten = make_pipeline(
            StandardScaler(), PCA(n_components, whiten=True, svd_solver="covariance_eigh")
        ).set_output(transform="default")  # whatever the user's own output is
        belief = prior(gate.T, np.ones(gate.shape[1], bool), top=0.3, floor=0.01, gamma=in_fit)
        features, belief = self.whiten.fit_transform(features), with_background(belief.T * present)
        self.classifier, self.share, self.objective = expectation_maximisation(
            self.classifier, features, belief
        )
        self.middle = middle_of_evidence(likelihood(self.classifier, features, self.share), belief)
        return self

    def posterior(self, activations, gate, present, filled):
        """Return the probability of classes.

        Parameters
        ----------
        activations : list of ndarray
            As in :func:`pixel_features`.
        gate : float32 ndarray of shape (n_present, height, width)
        present : int ndarray of shape (n_present,)
            Which classes these are.
        filled : ndarray of shape (n_present,)
            Area that each of them fills, of the whole image.

        Returns
        -------
        posterior : float32 ndarray of shape (n_present, height, width)
        """
        size = gate.shape[1:]
        features = self._whitened(activations, size).reshape(-1, gate[0].size).T
        used = [*present, -1]  # and the background
        evidence = likelihood(self.classifier, features, self.share)[:, used]
        evidence = np.log(evidence.T + _EPSILON, dtype=np.float32).reshape(-1, *size)
        width = self.scale.of_evidence
        evidence = ndimage.gaussian_filter(evidence, (0, width, width), truncate=3)
        evidence[:-1] -= self.middle[present, np.newaxis, np.newaxis]
        evidence = np.exp(evidence - evidence.max(axis=0))
        # How much of an image a crowded class fills is measured in that image.
        area = self.area[present]
        area = np.where(area < DENSE_FROM, area, filled)
        everywhere = np.ones(len(gate), bool)
        belief = prior(gate, everywhere, top=0.9, floor=0.05, gamma=exponents(area)[1])
        at_gate = _bayes(belief, 1 - belief.sum(axis=0), evidence)
        # Gates say which class there is, not where it ends.
        anywhere = _bayes(belief / belief.sum(axis=0), 1, evidence)
        band = grow(edge_of(at_gate.sum(axis=0) > 0.5), _BAND - 1)
        return np.where(band, anywhere, at_gate)

    def _whitened(self, activations, size):
        """Return the components of :func:`pixel_features`, (n_components, height, width).

        Components first, then smoothed and enlarged, as there are fewer of them than of filters.
        """
        scaler, pca = self.whiten[0], self.whiten[1]
        weights = pca.components_ / np.sqrt(pca.explained_variance_)[:, np.newaxis] / scaler.scale_
        offset = weights @ scaler.mean_ + pca.mean_ @ (weights * scaler.scale_).T
        components = -offset[:, np.newaxis, np.newaxis]
        for i, activation in enumerate(activations[: self.scale.n_layers]):
            of_layer, weights = np.split(weights, [len(activation)], axis=1)
            mixed = np.tensordot(of_layer.astype(np.float32), activation, axes=1)
            components = components + layer_features(mixed, 2**i, size, self.scale.sigma)
        return components.astype(np.float32)
