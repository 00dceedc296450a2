"""Random variations of the batches that the network trains on.

All is drawn from torch's global generators and computed on the device of the batch, without a
value travelling to the host.

Intensities are changed inside the *frame* of an image: [0, 1], widened to the image's own extremes
where they lie outside. Images in [0, 1] are thus scaled and clipped as in the paper, standardised
ones between their own minimum and maximum. The channels of an image share one frame.
"""

import torch
from torch.nn import functional as F

# The paper's factor and exponent are log-normal around 1, of a width that we do not know. Here 95 %
# of them lie in [0.68, 1.48]: the brightest third of the range, seldom more, is clipped.
INTENSITY_SIGMA = 0.2
GAMMA_SIGMA = 0.2
NOISE_MAX = 0.05  # of the image's range: the shot noise of 400 photons
BLUR_MAX = 2.0  # px, as on the paper's modified MNIST
BLUR_RADIUS = 8  # px: four standard deviations of the widest kernel


def make_augmenter(augmentation):
    """Return what varies a batch, or None.

    Parameters
    ----------
    augmentation : None, str, callable or list of str and callable
        "flip" (left-right and up-down), "turn" (by quarter turns; by half turns unless images are
        square), "intensity", "gamma", "noise", "blur", or "microscopy" for all six. A callable
        maps a batch to one of the same shape, dtype and device.

    Returns
    -------
    augmenter : Augmenter or None
        None if there is nothing to do.

    Raises
    ------
    TypeError, ValueError
        If `augmentation` is something else.

    Examples
    --------
    >>> import torch
    >>> from sklearn_micranet._training._augmentation import make_augmenter
    >>> augment = make_augmenter(["flip", torch.square])
    >>> augment(torch.tensor([[[[1.0, 3.0], [3.0, 1.0]]]])).sum()
    tensor(20.)
    """
    if augmentation is None:
        return None
    groups = {name: [name] for name in TRANSFORMATIONS} | {"microscopy": list(TRANSFORMATIONS)}
    entries = augmentation if isinstance(augmentation, list | tuple) else [augmentation]
    steps = []
    for entry in entries:
        if callable(entry):
            steps.append(entry)
        elif isinstance(entry, str) and entry in groups:
            steps.extend(groups[entry])
        else:
            error = ValueError if isinstance(entry, str) else TypeError
            raise error(
                "augmentation must be None, a name, a callable, or a list of names and callables. "
                f"The names are {list(groups)}. Got {entry!r} instead."
            )
    return Augmenter(steps) if steps else None


class Augmenter:
    """Vary a batch, by steps in an order drawn anew for each batch.

    Parameters
    ----------
    steps : list of str and callable
        A name of `TRANSFORMATIONS` stands for what each image undergoes with probability 0.5. A
        callable is given the whole batch each time.
    """

    def __init__(self, steps):
        self.steps = steps

    @property
    def functions(self):
        """What the steps are, names replaced by the functions they stand for."""
        return [TRANSFORMATIONS[s] if isinstance(s, str) else s for s in self.steps]

    @torch.no_grad()
    def __call__(self, batch, masks=None):
        """Return a varied copy of the batch, and of masks that are moved with their images.

        Parameters
        ----------
        batch : floating-point Tensor of shape (n, n_channels, height, width)
            Any range. It is not changed.
        masks : Tensor of shape (n, n_maps, height, width), default=None
            Only the steps of `MOVES` change them.

        Returns
        -------
        varied : Tensor
            Of the shape, dtype, device and memory layout of the batch.
        masks : Tensor
            Of the device of the batch. Only if masks are given.

        Raises
        ------
        TypeError, ValueError
            If a callable returns something else than such a Tensor.
        """
        varied = batch
        for i in torch.randperm(len(self.steps), device="cpu").tolist():
            step = self.steps[i]
            if masks is not None and step in MOVES:
                varied, masks = _moved(TRANSFORMATIONS[step], varied, masks)
            elif isinstance(step, str):
                varied = TRANSFORMATIONS[step](varied)
            else:
                # A copy, as the callable may work in place.
                varied = _checked(step(varied.clone()), batch, step)
        if varied.stride() != batch.stride():
            varied = torch.empty_like(batch).copy_(varied)
        return varied if masks is None else (varied, masks)


def _moved(function, images, masks):
    """Apply to images and masks a function that treats all channels alike."""
    both = function(torch.cat([images, masks.to(images)], dim=1))
    images, moved = both.tensor_split([images.shape[1]], dim=1)
    return images, moved.to(masks.dtype)


def _checked(varied, batch, step):
    name = getattr(step, "__name__", type(step).__name__)
    if not isinstance(varied, torch.Tensor):
        raise TypeError(
            f"A callable in augmentation must return a Tensor. Got {type(varied).__name__} from "
            f"{name} instead."
        )
    expected, actual = ((tuple(t.shape), t.dtype, t.device) for t in (batch, varied))
    if actual != expected:
        raise ValueError(
            "A callable in augmentation must keep the shape, dtype and device of the batch, "
            f"{', '.join(map(str, expected))}. Got {', '.join(map(str, actual))} from {name} "
            "instead."
        )
    return varied


def scale_intensity(images, factor):
    """Multiply the distance to the lower end of the frame, and clip at the upper end.

    In [0, 1] this is ``min(factor * x, 1)``.

    Parameters
    ----------
    images : Tensor of shape (n, n_channels, height, width)
    factor : Tensor of shape (n, 1, 1, 1)
    """
    low, high = _frame(images)
    return torch.minimum(low + factor * (images - low), high)


def change_gamma(images, exponent):
    """Raise to a power, after the frame is mapped to [0, 1] and before it is mapped back.

    In [0, 1] this is ``x ** exponent``, which needs no clipping.

    Parameters
    ----------
    images : Tensor of shape (n, n_channels, height, width)
    exponent : Tensor of shape (n, 1, 1, 1)
    """
    low, high = _frame(images)
    return low + (high - low) * ((images - low) / (high - low)) ** exponent


def add_noise(images, share):
    """Add Gaussian noise, and clip to the frame as a detector does.

    Parameters
    ----------
    images : Tensor of shape (n, n_channels, height, width)
    share : Tensor of shape (n, 1, 1, 1)
        Standard deviation, relative to the difference of the image's maximum and minimum.
    """
    std = share * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    return (images + std * torch.randn_like(images)).clamp(*_frame(images))


def blur(images, sigma):
    """Convolve each image with its own Gaussian; the border pixels are repeated outwards.

    Parameters
    ----------
    images : Tensor of shape (n, n_channels, height, width)
    sigma : Tensor of shape (n, 1, 1, 1)
        Standard deviation (px), at most `BLUR_MAX`.
    """
    n, n_channels, height, width = images.shape
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=images.dtype, device=images.device)
    kernels = torch.exp(-((offsets / sigma.clamp(min=1e-6)) ** 2) / 2)  # sigma 0: identity
    kernels = (kernels / kernels.sum(3, keepdim=True)).repeat_interleave(n_channels, dim=0)
    padded = F.pad(images, (BLUR_RADIUS,) * 4, mode="replicate")
    # The images lie side by side as channels, one group each.
    flat = padded.reshape(1, n * n_channels, *padded.shape[2:])
    flat = F.conv2d(flat, kernels, groups=n * n_channels)
    flat = F.conv2d(flat, kernels.transpose(2, 3), groups=n * n_channels)
    return flat.view(n, n_channels, height, width)


def _frame(images):
    low = images.amin((1, 2, 3), keepdim=True).clamp(max=0)
    high = images.amax((1, 2, 3), keepdim=True).clamp(min=1)
    return low, high


def _one_each(draw, images):
    """Draw a number for each image, in the shape that broadcasts."""
    return draw((len(images), 1, 1, 1), dtype=images.dtype, device=images.device)


def _half(images, varied):
    """Take each image from `varied` with probability 0.5."""
    # Computing those not taken, too, costs less than telling the host which ones are.
    return torch.where(_one_each(torch.rand, images) < 0.5, varied, images)


def _flip(images):
    images = _half(images, images.flip(3))
    return _half(images, images.flip(2))


def _turn(images):
    turned = images.rot90(2, (2, 3))
    if images.shape[2] == images.shape[3]:
        choice = torch.randint(3, (len(images), 1, 1, 1), device=images.device)
        turned = torch.where(choice == 1, images.rot90(1, (2, 3)), turned)
        turned = torch.where(choice == 2, images.rot90(3, (2, 3)), turned)
    return _half(images, turned)


def _intensity(images):
    factor = torch.exp(INTENSITY_SIGMA * _one_each(torch.randn, images))
    return _half(images, scale_intensity(images, factor))


def _gamma(images):
    exponent = torch.exp(GAMMA_SIGMA * _one_each(torch.randn, images))
    return _half(images, change_gamma(images, exponent))


def _noise(images):
    return _half(images, add_noise(images, NOISE_MAX * _one_each(torch.rand, images)))


def _blur(images):
    return _half(images, blur(images, BLUR_MAX * _one_each(torch.rand, images)))


TRANSFORMATIONS = {
    "flip": _flip,
    "turn": _turn,
    "intensity": _intensity,
    "gamma": _gamma,
    "noise": _noise,
    "blur": _blur,
}
MOVES = ("flip", "turn")  # the steps that move pixels, and change none of their values
