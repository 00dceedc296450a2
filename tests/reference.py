"""Local maps as the paper defines them, by plain automatic differentiation in float64."""

from copy import deepcopy

import torch
from torch import nn

from sklearn_micranet._network._local_maps import forward, local_maps
from sklearn_micranet._network._module import MicraNet


def random_network(n_channels=1, n_outputs=3, n_filters=4):
    """Return a network with non-trivial batch norm statistics, in evaluation mode."""
    network = MicraNet(n_channels, n_outputs, n_filters)
    randomize(network, n_channels)
    return network


def randomize(network, n_channels):
    """Give a network random batch norm weights, the statistics of random images, and outputs."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.5)  # some are negative
            nn.init.normal_(module.bias, 0, 0.5)
            module.momentum = 1
    nn.init.normal_(network.linear.weight)
    network.train()
    with torch.no_grad():
        network(torch.rand(4, n_channels, 32, 32))
    network.eval()


def reference_maps(network, images):
    """Work out equations (1) and (2) of the paper for all classes.

    Parameters
    ----------
    network : MicraNet
    images : Tensor of shape (n_samples, n_channels, height, width)

    Returns
    -------
    maps : list of 8 float64 Tensors of shape (n_samples, n_outputs, height_l, width_l)
        L1 to L8; only L8 is passed through a ReLU.
    """
    network = deepcopy(network).double().eval()
    activations = []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda module, args, output: activations.append(output))
    logits = network(images.double().contiguous())
    assert len(activations) == 8
    maps = [[] for _ in activations]
    for of_class in logits.sum(dim=0):  # images do not depend on each other
        gradients = torch.autograd.grad(of_class, activations, retain_graph=True)
        for layer, gradient, activation in zip(maps, gradients, activations, strict=True):
            alpha = gradient.mean(dim=(2, 3), keepdim=True)
            layer.append((alpha * activation).sum(dim=1).detach())
    maps = [torch.stack(layer, dim=1) for layer in maps]
    return [*maps[:7], maps[7].relu()]


def explain(folded, images, select):
    """Return the (image, class) pairs that `select` chooses by the logits, and our maps of them."""
    passed = forward(folded, images)
    pairs = select(passed.logits).nonzero()
    return pairs, local_maps(folded, passed, pairs)
