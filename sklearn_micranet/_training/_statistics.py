"""Statistics of batch normalisation that are right when they are used."""

import numpy as np
import torch
from skorch.callbacks import Callback
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from ._batches import n_batches
from ._negatives import draw_negatives

N_STEPS_OF_CHANGE = 100  # the weights change faster than a running average follows
_MAX_BATCHES = 10  # that an estimate reads


class BatchStatistics(Callback):
    """Keep the running statistics of batch normalisation without bias, and estimate them anew.

    torch starts its running averages at mean 0 and variance 1, of which a tenth is replaced in each
    step: in the first steps they, and any loss in evaluation mode, are wrong. Here an average is
    the plain mean of the batches until ten have been seen, and in the first steps the statistics
    are estimated from the training images whenever they are about to be used.

    Parameters
    ----------
    n_steps : int
        So many steps are the first ones.
    """

    def __init__(self, n_steps=N_STEPS_OF_CHANGE):
        self.n_steps = n_steps

    def on_train_begin(self, net, X=None, **kwargs):
        self.norms_ = [m for m in net.module_.modules() if isinstance(m, BatchNorm)]
        self.momenta_ = [norm.momentum for norm in self.norms_]
        self.n_done_ = max((int(norm.num_batches_tracked) for norm in self.norms_), default=0)
        self.is_estimated_ = False
        self.dataset_ = X

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            self.n_done_ += 1
            self.is_estimated_ = False
            for norm, momentum in zip(self.norms_, self.momenta_, strict=True):
                norm.momentum = max(momentum, 1 / self.n_done_)
        elif not self.is_estimated_:
            self._estimate(net)

    def on_train_end(self, net, **kwargs):
        if net.train_split is None:
            self._estimate(net)
        for norm, momentum in zip(self.norms_, self.momenta_, strict=True):
            norm.momentum = momentum
        del self.norms_, self.dataset_

    @torch.no_grad()
    def _estimate(self, net):
        """Replace the statistics by the means over some training batches, without augmentation."""
        self.is_estimated_ = True
        if self.n_done_ >= self.n_steps:
            return
        net.module_.train()
        updated = [norm for norm in self.norms_ if norm.training]
        counts = [norm.num_batches_tracked.clone() for norm in updated]
        net.module_.eval()
        for norm in updated:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean
            norm.train()
        for part in self._parts(net):
            net.module_(self.dataset_[part][0].to(net.device))
        for norm, count in zip(updated, counts, strict=True):
            norm.num_batches_tracked.copy_(count)
            norm.eval()

    def _parts(self, net):
        """Return the positions of the images of each batch: the same ones in every epoch."""
        ratio = net.iterator_train__negatives_per_positive
        positions = np.arange(len(self.dataset_))
        if ratio is not None:
            permutation = np.random.RandomState(0).permutation
            positions = draw_negatives(self.dataset_.is_positive, ratio, permutation)
        n_used = min(len(positions), _MAX_BATCHES * net.batch_size)
        positions = positions[np.linspace(0, len(positions) - 1, n_used).round().astype(int)]
        return np.array_split(positions, n_batches(n_used, net.batch_size))
