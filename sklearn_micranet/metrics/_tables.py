"""Results with rows and columns."""

import numpy as np


def as_table(**columns):
    """Return a DataFrame, or a dict of arrays where pandas is not installed."""
    columns = {name: np.asarray(values) for name, values in columns.items()}
    try:
        import pandas as pd
    except ImportError:
        return columns
    return pd.DataFrame(columns)
