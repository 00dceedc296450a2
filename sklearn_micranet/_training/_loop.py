"""The loop over epochs, and what becomes of a net after it."""

from contextlib import suppress

from skorch.callbacks import EarlyStopping, ProgressBar

from ._allocation import freed_memory_kept


def run_epochs(net, dataset, n_epochs, checkpoint=None):
    """Run skorch's loop. Unlike `NeuralNet.partial_fit` it lets Ctrl-C through, after tidying up.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialised.
    dataset : LabelledImages
    n_epochs : int
    checkpoint : Checkpoint, default=None
        One of the callbacks of the net. The loop goes on from its state, if it has one.
    """
    if checkpoint is not None and checkpoint.state is not None:
        checkpoint.restore_net(net)
        n_epochs -= len(net.history)
        if checkpoint.state["is_finished"]:
            return
    net.notify("on_train_begin", X=dataset, y=None)
    interruption = None
    try:
        with freed_memory_kept():
            net.fit_loop(dataset, epochs=n_epochs)
    except KeyboardInterrupt as error:
        missed = _callbacks_after_early_stopping(net)
        if missed is None:
            interruption = error
            _take_back_epoch(net)
        else:
            _, valid_dataset = net.get_split_datasets(dataset)
            for callback in missed:
                with suppress(KeyboardInterrupt):  # another early stopping
                    callback.on_epoch_end(net, dataset_train=dataset, dataset_valid=valid_dataset)
    if net.history:
        net.notify("on_train_end", X=dataset, y=None)
    if interruption is not None:
        raise interruption
    if checkpoint is not None:
        checkpoint.finish(net)


def _callbacks_after_early_stopping(net):
    """Return the callbacks that missed the end of the epoch because early stopping came first.

    skorch's early stopping ends the loop with a KeyboardInterrupt. None if that was not the one.
    """
    callbacks = [callback for _, callback in net.callbacks_]
    for i, callback in enumerate(callbacks):
        if isinstance(callback, EarlyStopping) and callback.misses_ == callback.patience:
            return callbacks[i + 1 :]
    return None


def _take_back_epoch(net):
    """Return to whole epochs, and to the weights of the best one if they are kept."""
    net.history.pop()
    for _, callback in net.callbacks_:
        # At the end of training they are loaded only if a whole epoch came after the best.
        if isinstance(callback, EarlyStopping) and callback.best_model_weights_ is not None:
            net.module_.load_state_dict(callback.best_model_weights_)
        elif isinstance(callback, ProgressBar) and hasattr(callback, "pbar_"):
            callback.pbar_.close()
