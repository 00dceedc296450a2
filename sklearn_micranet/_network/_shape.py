"""The shape of the network: its depths, its layers, and what follows from them. Without torch."""

N_DEPTHS = 4  # each of two convolutions, with a 2 x 2 max-pooling after all but the last

DEPTHS = tuple(range(1, N_DEPTHS + 1))
LAYER_NAMES = tuple(f"L{i}" for i in range(1, 2 * N_DEPTHS + 1))  # two for each depth
FINE_LAYERS, COARSE_LAYER = LAYER_NAMES[:-1], LAYER_NAMES[-1]
IMAGE_LAYER = "image"  # the image itself, where it travels before the layers

STRIDE = 2 ** (N_DEPTHS - 1)  # px of the image for each px of the last depth
MIN_SIZE = STRIDE  # px, so that the last depth has one


def n_filters_of(depth, n_filters):
    """Return the number of filters at a depth, counted from 1; each has twice the one before."""
    return n_filters * 2 ** (depth - 1)
