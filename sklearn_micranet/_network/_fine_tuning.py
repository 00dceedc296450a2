"""Fine-tuning: start from trained weights, and update the last depths only."""

from collections.abc import Mapping
from os import PathLike

from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from ._weights import architecture_of, read_weights


def pretrained_weights(pretrained):
    """Return the state dict that `pretrained` names.

    Parameters
    ----------
    pretrained : str, path-like, Mapping, or fitted MicraNetClassifier, possibly frozen
    """
    if isinstance(pretrained, (str, PathLike)):
        return read_weights(pretrained)[0]
    if isinstance(pretrained, Mapping):
        return dict(pretrained)
    estimator = pretrained.estimator if isinstance(pretrained, FrozenEstimator) else pretrained
    if not hasattr(estimator, "net_"):
        is_network = hasattr(type(estimator), "module_")
        raise (NotFittedError if is_network else TypeError)(
            "pretrained must be a file, a state dict, or a fitted MicraNetClassifier in a "
            "FrozenEstimator (a clone of a classifier that is not frozen loses its weights). Got "
            f"{pretrained!r} instead."
        )
    return estimator.module_.state_dict()


def load_pretrained(network, weights):
    """Load trained weights; the linear layer only if it is for as many outputs."""
    try:
        given = architecture_of(weights)
    except ValueError as error:
        raise ValueError(f"pretrained must hold the weights of a MicraNet: {error}") from error
    needed = architecture_of(network.state_dict())
    for name, of in (("n_filters", "filters at depth 1"), ("n_channels", "channels per image")):
        if given[name] != needed[name]:
            raise ValueError(
                f"The weights must be for {needed[name]} {of}. Got {given[name]} instead"
                + (": set n_filters." if name == "n_filters" else ".")
            )
    if given["n_outputs"] != needed["n_outputs"]:
        weights = {k: v for k, v in weights.items() if not k.startswith("linear.")}
    network.load_state_dict(weights, strict=False)  # the names were compared above


def freeze(network, fine_tune_depth):
    """Freeze all but the last `fine_tune_depth` depths and what follows them."""
    network.n_frozen = len(network.depths) - fine_tune_depth
    for depth in network.depths[: network.n_frozen]:
        depth.requires_grad_(False)


def updated_parameters(network):
    """Return the names of the parameters that training updates."""
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]
