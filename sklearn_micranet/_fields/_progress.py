"""A progress bar."""

from contextlib import contextmanager

from sklearn_micranet._stack._extras import import_extra


@contextmanager
def progress(total, what, verbose):
    """Yield what is called with the number of items that were finished.

    Parameters
    ----------
    total : int
    what : str
        Stands before the bar.
    verbose : int
        0 for no bar; tqdm is needed otherwise.
    """
    if not verbose:
        yield lambda n: None
        return
    with import_extra("tqdm", "progress").tqdm(total=total, desc=what) as bar:
        yield bar.update
