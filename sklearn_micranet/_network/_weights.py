"""Network weights on disk: tensors and plain values, never pickled objects."""

import io
import json
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from sklearn_micranet._stack._extras import import_extra
from sklearn_micranet._stack._files import atomic_path

from ._module import MicraNet

_FORMAT, _VERSION = "sklearn-micranet weights", 1
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PLAIN_TYPES = (str, int, float, bool, type(None), torch.Tensor)
_N_LISTED = 3  # names in an error message


def write_weights(path, state_dict, metadata):
    """Write the state dict of a `MicraNet`, and a dict of plain values, see `write_tensors`."""
    architecture_of(state_dict)
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"{Path(path).parent} must be a folder. Got nothing instead.")
    content = {"metadata": metadata, "state_dict": state_dict}
    write_tensors(path, {"format": _FORMAT, "version": _VERSION, **content})


def read_weights(path, *, name=None):
    """Read the weights of a `MicraNet` from a file of this package or of the paper's authors.

    Parameters
    ----------
    path : str or path-like
        A file of `write_weights`; a state dict that :func:`torch.save` wrote, of a `MicraNet` or of
        the authors' network (``params.net``); or the authors' HDF5 file, which needs h5py.
    name : str, default=None
        The network to read from an HDF5 file that holds several, such as ``"MICRANet/<model>"``.

    Returns
    -------
    state_dict : dict of str to Tensor
        Named as in `MicraNet`, float32 (the counters of batch normalisation int64), on the CPU.
    metadata : dict
        As it was written; from an HDF5 file ``trainer_params`` and ``class_thresholds``, where
        the group of the network or one above it has them; otherwise empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another kind, or `name` is needed or wrong.
    ImportError
        If an HDF5 file is read without h5py: ``pip install "sklearn-micranet[hdf5]"``.
    """
    with _open(path) as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    if is_hdf5:
        tensors, metadata = _read_hdf5(path, name)
    elif name is not None:
        raise ValueError(f"name must be None, as {path} is no HDF5 file. Got {name!r} instead.")
    else:
        tensors, metadata = read_tensors(path), {}
    if isinstance(tensors, dict) and tensors.get("format") == _FORMAT:
        if tensors.get("version") != _VERSION:
            raise ValueError(
                f"{path} must be of version {_VERSION}. Got version {tensors.get('version')} "
                "instead: update sklearn-micranet."
            )
        tensors, metadata = tensors.get("state_dict"), tensors.get("metadata", {})
    try:
        if isinstance(tensors, dict):
            tensors = {_own_name(str(key)): tensor for key, tensor in tensors.items()}
        architecture_of(tensors)
        return {key: _converted(key, tensor) for key, tensor in tensors.items()}, metadata
    except ValueError as error:
        raise ValueError(f"{path} must hold the weights of a MicraNet. {error}") from error


def architecture_of(state_dict):
    """Return the sizes of the `MicraNet` that a state dict belongs to, or raise a ValueError.

    Examples
    --------
    >>> from sklearn_micranet._network._module import MicraNet
    >>> from sklearn_micranet._network._weights import architecture_of
    >>> architecture_of(MicraNet(n_channels=3, n_outputs=2, n_filters=8).state_dict())
    {'n_channels': 3, 'n_outputs': 2, 'n_filters': 8}
    """
    expected = _shapes(n_channels=1, n_outputs=1, n_filters=1)
    names = state_dict if isinstance(state_dict, dict) else ()
    missing = [name for name in expected if name not in names]
    unexpected = [name for name in names if name not in expected]
    if missing or unexpected:
        raise ValueError(
            f"A dict of the {len(expected)} tensors depth1.conv_a.weight to linear.bias is "
            f"required. Got {type(state_dict).__name__} instead, missing: {_listed(missing)}; "
            f"unexpected: {_listed(unexpected)}. Save the state_dict() of the network, alone."
        )
    for name, tensor in state_dict.items():
        n_dimensions = len(expected[name])
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != n_dimensions or 0 in tensor.shape:
            raise ValueError(
                f"{name} must be a tensor of {n_dimensions} dimensions, none of them empty. Got "
                f"{type(tensor).__name__} of shape {tuple(np.shape(tensor))} instead: these are "
                "not the weights of a MicraNet."
            )
    n_filters, n_channels = state_dict["depth1.conv_a.weight"].shape[:2]
    n_outputs = len(state_dict["linear.weight"])
    sizes = {"n_channels": n_channels, "n_outputs": n_outputs, "n_filters": n_filters}
    for name, shape in _shapes(**sizes).items():
        if state_dict[name].shape != shape:
            raise ValueError(
                f"{name} must be of shape {shape}, since depth 1 has {n_filters} filters and every "
                f"following depth twice as many. Got {tuple(state_dict[name].shape)} instead: "
                "these are not the weights of a MicraNet."
            )
    return sizes


def write_tensors(path, payload):
    """Write tensors and plain values, at once and only if nothing fails.

    Parameters
    ----------
    path : str or path-like
        The file, replaced if it exists.
    payload : dict, list or tuple
        Of tensors, str, int, float, bool, None, and dicts, lists and tuples of these. NumPy
        scalars become Python's.

    Raises
    ------
    TypeError
        If a value is of another type, which `read_tensors` would refuse.
    """
    # Straight into a file torch.save reports a full disk as an error about positions, and writes
    # the name of the file too.
    content = io.BytesIO()
    torch.save(_plain(payload, "payload"), content)
    with atomic_path(path) as part:
        part.write_bytes(content.getbuffer())


def read_tensors(path):
    """Return what `write_tensors` or :func:`torch.save` wrote, on the CPU; run no code.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another kind, or holds Python objects.
    OSError, MemoryError or RuntimeError
        If the file cannot be read now, or memory does not suffice: that says nothing about it.
    """
    with _open(path) as file:
        content = io.BytesIO(file.read())
    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a KeyError for text, an OSError for a truncated file, ...
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            raise
        raise ValueError(
            f"{path} must be a file of tensors and plain values that torch.save wrote. Got an "
            "empty, truncated or different file instead, or one with Python objects, which "
            "are refused as they can run code. Copy the file again, or have its author save "
            "the state_dict() of the network."
        ) from error


def _open(path):
    if not Path(path).is_file():
        got = "a folder" if Path(path).is_dir() else "nothing"
        raise FileNotFoundError(f"{path} must be a file. Got {got} instead: check the path.")
    return open(path, "rb")


def _plain(value, place):
    if type(value) in (dict, OrderedDict):
        return {
            _plain(key, f"key {key!r} of {place}"): _plain(item, f"{place}[{key!r}]")
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{place}[{i}]") for i, item in enumerate(value))
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) not in _PLAIN_TYPES:
        raise TypeError(
            f"{place} must be a tensor, str, int, float, bool, None, or a dict, list or tuple of "
            f"these. Got {type(value).__name__} instead: convert an array with .tolist()."
        )
    return value


def _shapes(**sizes):
    with torch.device("meta"):  # takes neither memory nor random numbers
        network = MicraNet(**sizes)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _listed(names):
    rest = f" and {len(names) - _N_LISTED} more" if len(names) > _N_LISTED else ""
    return ", ".join(map(str, names[:_N_LISTED])) + rest or "none"


def _own_name(name):
    """Translate a name of the authors' network; any other stays as it is."""
    name = re.sub(r"^conv(\d)([ab])\.", r"depth\1.conv_\2.", name)
    name = re.sub(r"^bnorm(\d)([ab])\.", r"depth\1.norm_\2.", name)
    return re.sub(r"^linear1\.", "linear.", name)


def _converted(name, tensor):
    if name.endswith(".num_batches_tracked"):
        return tensor.to(torch.int64)
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be of floating-point numbers. Got {tensor.dtype} instead.")
    return tensor.to(torch.float32)


def _read_hdf5(path, name):
    h5py = import_extra("h5py", "hdf5")
    try:
        with h5py.File(path) as file:
            places = []
            file.visit(places.append)
            tensors = [place for place in places if isinstance(file[place], h5py.Dataset)]
            found = [re.match(r"(MICRANet(-[^/]*)?/.+)/", place) for place in tensors]
            names = sorted({match[1] for match in found if match})
            if name in names or (name is None and len(names) == 1):
                return _read_group(file, name or names[0])
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must be a whole HDF5 file of network weights. Got an error instead: copy the "
            f"file again. ({error})"
        ) from error
    raise ValueError(
        f"name must be one of the networks of {path}, in its groups MICRANet or "
        f"MICRANet-<supervision>: {', '.join(map(repr, names)) or 'none'}. Got {name!r} instead."
    )


def _decoded(value, place):
    if not isinstance(value, str | bytes):
        return np.asarray(value).tolist()
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"The {place} must be JSON. Got {value!r:.60} instead.") from error


def _read_group(file, name):
    """Return the tensors of a group, and the attributes of it and of the groups above it."""
    metadata, group = {}, file
    for part in name.split("/"):
        group = group[part]
        for key in {"trainer_params", "class_thresholds"} & group.attrs.keys():
            metadata[key] = _decoded(group.attrs[key], f"attribute {key} of {group.name}")
    arrays = {key: np.asarray(item) for key, item in group.items() if hasattr(item, "shape")}
    return {
        # torch takes arrays of the machine's byte order only.
        key: torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        for key, array in arrays.items()
    }, metadata
