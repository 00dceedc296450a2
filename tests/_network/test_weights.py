import io
import json
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._network._weights import (
    architecture_of,
    read_tensors,
    read_weights,
    write_tensors,
    write_weights,
)

SIZES = {"n_channels": 2, "n_outputs": 3, "n_filters": 2}
METADATA = {
    "classes": ["ring", "fibre", None],
    "threshold": 0.1,
    "is_multilabel": True,
    "nested": {"image_shape": [12, 2**70], "infinite": float("inf")},
}
HALVES = [(depth, half) for depth in (1, 2, 3, 4) for half in "ab"]
# Tensors of a layer, from the layout's description.
CONVOLUTION = ("weight", "bias")
NORMALISATION = (*CONVOLUTION, "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def network():
    """A network whose every tensor is random, so that no two of them can be exchanged."""
    network = MicraNet(**SIZES).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape))
        else:
            tensor.fill_(2**40 + 1)
    return network


@pytest.fixture
def state_dict(network):
    return network.state_dict()


def authors_names():
    """Map names of the authors' network, from the layout's description, to ours."""
    names = {"linear1.weight": "linear.weight", "linear1.bias": "linear.bias"}
    for depth, half in HALVES:
        for tensor in CONVOLUTION:
            names[f"conv{depth}{half}.{tensor}"] = f"depth{depth}.conv_{half}.{tensor}"
        for tensor in NORMALISATION:
            names[f"bnorm{depth}{half}.{tensor}"] = f"depth{depth}.norm_{half}.{tensor}"
    return names


def authors_state_dict(state_dict):
    return {theirs: state_dict[ours] for theirs, ours in authors_names().items()}


def write_hdf5(path, networks, attributes=()):
    """Write networks as the authors do, from the layout's description."""
    with h5py.File(path, "w") as file:
        for name, state_dict in networks.items():
            for key, tensor in authors_state_dict(state_dict).items():
                file[f"{name}/{key}"] = np.asarray(tensor)
        for name, key, value in attributes:
            file[name].attrs[key] = value


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


# --- round trips ----------------------------------------------------------------------------


def test_weights_and_metadata_return_unchanged(tmp_path, state_dict):
    path = tmp_path / "net.pt"
    write_weights(path, state_dict, METADATA)
    tensors, metadata = read_weights(str(path))
    assert_same(tensors, state_dict)
    assert metadata == METADATA
    assert os.listdir(tmp_path) == ["net.pt"]


def test_the_same_weights_are_the_same_bytes_and_replace_a_file(tmp_path, state_dict):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"old")
        write_weights(tmp_path / name, state_dict, METADATA)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_the_state_of_a_training_returns(tmp_path, state_dict):
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.rand(2, 3)}
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "amsgrad": False, "params": [0, 1]}
    best = OrderedDict(state_dict)
    state = {"optimizer": {"state": {0: moments}, "param_groups": [group]}, "best": best}
    write_tensors(tmp_path / "state.pt", state)
    found = read_tensors(tmp_path / "state.pt")
    assert_same(found["best"], best)
    assert_same(found["optimizer"]["state"].pop(0), moments)
    assert found["optimizer"] == {"state": {}, "param_groups": [group]}


def test_numpy_scalars_become_plain(tmp_path):
    payload = {np.str_("a"): [np.float64(0.1), np.int32(3), np.bool_(True), np.str_("b")]}
    write_tensors(tmp_path / "x.pt", payload)
    found = read_tensors(tmp_path / "x.pt")
    assert found == {"a": [0.1, 3, True, "b"]}
    assert [type(value) for value in found["a"]] == [float, int, bool, str]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(2), r"^payload\['a'\]\[1\]\['b'\] must be .* Got ndarray instead.*tolist"),
        ({1, 2}, "Got set instead"),
        (np.datetime64("2020-01-01"), "Got date instead"),
        (torch.nn.Linear(1, 1), "Got Linear instead"),
        ({(1, print): 2}, r"^key \(1, .*\) of payload.*Got builtin_function_or_method instead"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, value, message):
    path = tmp_path / "x.pt"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match=message):
        write_tensors(path, {"a": [0, {"b": value}]})
    assert path.read_bytes() == b"old"


@pytest.fixture(params=[None, b"old"], ids=["new file", "old file"])
def kept(request, tmp_path):
    """The content of a folder in which net.pt is about to be written."""
    files = {} if request.param is None else {"net.pt": request.param}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return files


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_crash_while_saving_keeps_the_old_file(tmp_path, monkeypatch, state_dict, kept):
    def crash(payload, file):
        file.write(b"half" * 10_000)
        raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        write_weights(tmp_path / "net.pt", state_dict, {})
    assert contents(tmp_path) == kept


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, state_dict, kept):
    resource = pytest.importorskip("resource")
    sizes = []
    unlink = Path.unlink

    def record_and_unlink(path, **options):
        sizes.append(path.stat().st_size)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", record_and_unlink)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_weights(tmp_path / "net.pt", state_dict, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sizes == [5000]  # so half a file was there
    assert contents(tmp_path) == kept


def test_a_crash_while_replacing_keeps_the_old_file(tmp_path, monkeypatch, state_dict, kept):
    parts = []

    def crash(source, target):
        parts.append(read_weights(source))
        raise PermissionError("in use")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(PermissionError, match="in use"):
        write_weights(tmp_path / "net.pt", state_dict, {})
    assert_same(parts[0][0], state_dict)  # so the new file was there, and whole
    assert contents(tmp_path) == kept


def test_the_content_is_on_the_disk_before_it_gets_the_name(tmp_path, monkeypatch, kept):
    sizes, replaced = [], []
    fsync, replace = os.fsync, os.replace

    def record_and_sync(file):
        sizes.append(os.fstat(file).st_size)
        fsync(file)

    def record_and_replace(source, target):
        replaced.append((len(sizes), os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_and_sync)
    monkeypatch.setattr(os, "replace", record_and_replace)
    write_tensors(tmp_path / "net.pt", {"a": torch.ones(100)})
    assert replaced == [(1, sizes[0])]
    assert contents(tmp_path).keys() == {"net.pt"}
    assert sizes == [len(contents(tmp_path)["net.pt"])]


def test_a_missing_folder_is_an_error(tmp_path, state_dict):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_weights(tmp_path / "nowhere" / "net.pt", state_dict, {})


def test_weights_of_another_network_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"58 tensors .* required.*unexpected: weight, bias"):
        write_weights(tmp_path / "net.pt", torch.nn.Linear(2, 2).state_dict(), {})
    assert os.listdir(tmp_path) == []


# --- files that are refused -----------------------------------------------------------------


class Evil:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, "content")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello world, this is text\n", id="text"),
        pytest.param(b"import os\n", id="code"),
        pytest.param(zipped("a.txt"), id="zip"),
        pytest.param(zipped("archive/a.txt"), id="zip with a folder"),
        pytest.param(pickle.dumps({"a": 1}), id="pickle"),
        pytest.param(saved(torch.nn.Linear(1, 1)), id="module"),
        pytest.param(saved({"a": np.float64(1)}), id="NumPy"),
    ],
)
@pytest.mark.parametrize("read", [read_weights, read_tensors])
def test_foreign_files_are_refused(tmp_path, read, content):
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.pt must be a file of tensors .* Got an empty"):
        read(path)


@pytest.mark.parametrize("n_bytes", [1, 3, 100, 1000, 10_000, -1000, -10])
def test_truncated_files_are_refused(tmp_path, state_dict, n_bytes):
    path = tmp_path / "net.pt"
    write_weights(path, state_dict, METADATA)
    content = path.read_bytes()
    assert len(content) > 20_000
    path.write_bytes(content[:n_bytes])
    with pytest.raises(ValueError, match=r"net\.pt must be a file of tensors .* truncated"):
        read_weights(path)


@pytest.mark.parametrize(
    "error",
    [MemoryError("no memory"), RuntimeError("DefaultCPUAllocator: can't allocate: no memory")],
)
def test_a_lack_of_memory_is_no_damage(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    write_tensors(tmp_path / "x.pt", {})
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error), match="no memory"):
        read_tensors(tmp_path / "x.pt")


def test_torch_words_a_lack_of_memory_so():
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        torch.empty(2**50)


def test_an_error_of_the_disk_is_no_damage(tmp_path, monkeypatch):
    class Disk(io.BytesIO):
        def read(self, *args):
            raise OSError("Input/output error")

        readinto = readline = read

    write_tensors(tmp_path / "x.pt", {})
    monkeypatch.setattr(
        "sklearn_micranet._network._weights._open", lambda path: Disk(path.read_bytes())
    )
    with pytest.raises(OSError, match="Input/output error"):
        read_tensors(tmp_path / "x.pt")


def malicious_files(victim):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps(Evil(victim), protocol)
    yield saved({"state_dict": Evil(victim)})
    yield saved({"state_dict": Evil(victim)}, _use_new_zipfile_serialization=False)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("read", [read_weights, read_tensors])
def test_code_in_a_file_never_runs(tmp_path, read):
    victim, path = tmp_path / "victim", tmp_path / "net.pt"
    pickle.loads(next(malicious_files(victim))).close()
    assert victim.exists()  # so unpickling would run the code
    victim.unlink()
    for content in malicious_files(victim):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="Python objects, which are refused as they can run"):
            read(path)
        assert not victim.exists()


@pytest.mark.parametrize("read", [read_weights, read_tensors])
def test_missing_files(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"net\.pt must be a file\. Got nothing instead"):
        read(tmp_path / "net.pt")
    with pytest.raises(FileNotFoundError, match=r"must be a file\. Got a folder instead"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "Got list instead, missing: depth1.conv_a.weight, .* and 55 more"),
        (torch.ones(2), "Got Tensor instead"),
        ({1: 2, "format": torch.ones(2)}, "Got dict instead, .*; unexpected: 1, format"),
        ({"format": "sklearn-micranet weights", "version": 2}, "version 1. Got version 2 .*update"),
        ({"format": "sklearn-micranet weights", "version": 1}, "Got NoneType instead"),
    ],
)
def test_torch_files_of_other_content_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=rf"net\.pt must .*{message}"):
        read_weights(tmp_path / "net.pt")


# --- layouts --------------------------------------------------------------------------------


def test_a_plain_state_dict(tmp_path, state_dict):
    torch.save(state_dict, tmp_path / "net.pt")
    tensors, metadata = read_weights(tmp_path / "net.pt")
    assert_same(tensors, state_dict)
    assert metadata == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_the_authors_state_dict(tmp_path, network, state_dict, zipped):
    path = tmp_path / "params.net"
    renamed = authors_state_dict(state_dict)
    assert len(renamed) == 58
    torch.save(renamed, path, _use_new_zipfile_serialization=zipped)
    tensors, metadata = read_weights(path)
    assert metadata == {}
    other = MicraNet(**architecture_of(tensors)).eval()
    other.load_state_dict(tensors)
    images = torch.rand(2, 2, 16, 24)
    with torch.no_grad():
        logits = network(images)
        assert torch.equal(other(images), logits)
    assert logits.unique().numel() == logits.numel()


def test_the_only_network_of_the_authors_hdf5_file(tmp_path, state_dict):
    path, name = tmp_path / "weights.hdf5", "MICRANet/f_actin"
    attributes = [
        (name, "trainer_params", json.dumps({"lr": 0.001, "size": [256, None]})),
        (name, "class_thresholds", np.float32([0.25, 0.5])),
    ]
    write_hdf5(path, {name: state_dict}, attributes)
    for chosen in (None, name):
        tensors, metadata = read_weights(path, name=chosen)
        assert_same(tensors, state_dict)
        assert metadata == {
            "trainer_params": {"lr": 0.001, "size": [256, None]},
            "class_thresholds": [0.25, 0.5],
        }


def test_one_of_several_networks_and_folds(tmp_path):
    path = tmp_path / "weights.hdf5"
    names = ["MICRANet-weak/vivax/fold0", "MICRANet-weak/vivax/fold1", "MICRANet/a"]
    networks = {name: MicraNet(**SIZES).state_dict() for name in names}
    attributes = [
        ("MICRANet-weak/vivax", "class_thresholds", "[0.5]"),
        ("MICRANet-weak/vivax", "trainer_params", np.bytes_('{"lr": 1}')),
        ("MICRANet-weak/vivax/fold1", "trainer_params", '{"lr": 2}'),
        ("MICRANet/a", "unknown", 1),
    ]
    write_hdf5(path, {**networks, "UNet/a": networks["MICRANet/a"]}, attributes)
    found = {name: read_weights(path, name=name) for name in names}
    for name in names:
        assert_same(found[name][0], networks[name])
    assert [found[name][1] for name in names] == [
        {"trainer_params": {"lr": 1}, "class_thresholds": [0.5]},
        {"trainer_params": {"lr": 2}, "class_thresholds": [0.5]},
        {},
    ]
    listed = ", ".join(map(repr, names))
    for name in (None, "MICRANet-weak/vivax", "UNet/a"):
        with pytest.raises(ValueError, match=rf"name must be .*: {listed}\. Got {name!r} instead"):
            read_weights(path, name=name)


def test_an_hdf5_file_without_networks(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["data"] = [1, 2]
        file["MICRANet/data"] = [1, 2]
    with pytest.raises(ValueError, match=r"in its groups MICRANet .*: none\. Got None instead"):
        read_weights(tmp_path / "x.hdf5")


def change_text(file, group):
    group.attrs["trainer_params"] = "{lr: 1}"


def change_to_words(file, group):
    del group["linear1.bias"]
    group["linear1.bias"] = ["not", "a", "number"]


def remove_tensor(file, group):
    del group["bnorm3b.bias"]


def flatten_convolution(file, group):
    values = np.asarray(group["conv2a.weight"])
    del group["conv2a.weight"]
    group["conv2a.weight"] = values.reshape(len(values), -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            change_text,
            r"a whole HDF5 .*attribute trainer_params of /MICRANet/a must be JSON. Got '{lr",
        ),
        (change_to_words, r"a whole HDF5 file .*object_"),
        (remove_tensor, "Got dict instead, missing: depth3.norm_b.bias; unexpected: none"),
        (flatten_convolution, r"depth2.conv_a.weight must be .* 4 dim.* Tensor of shape \(4, 18\)"),
    ],
)
def test_hdf5_files_of_other_content(tmp_path, state_dict, change, message):
    path = tmp_path / "x.hdf5"
    write_hdf5(path, {"MICRANet/a": state_dict})
    with h5py.File(path, "a") as file:
        change(file, file["MICRANet/a"])
    with pytest.raises(ValueError, match=rf"x\.hdf5 must .*{message}"):
        read_weights(path)


@pytest.mark.parametrize("n_bytes", [8, 1000, -1000])
def test_truncated_hdf5_files(tmp_path, state_dict, n_bytes):
    path = tmp_path / "x.hdf5"
    write_hdf5(path, {"MICRANet/a": state_dict})
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=r"x\.hdf5 must be a whole HDF5 file"):
        read_weights(path)


def test_hdf5_needs_h5py(tmp_path, monkeypatch, state_dict):
    write_hdf5(tmp_path / "x.hdf5", {"MICRANet/a": state_dict})
    write_weights(tmp_path / "x.pt", state_dict, {})
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert_same(read_weights(tmp_path / "x.pt")[0], state_dict)
    with pytest.raises(ImportError, match=r'pip install "sklearn-micranet\[hdf5\]"'):
        read_weights(tmp_path / "x.hdf5")


def test_a_name_is_for_hdf5_files_only(tmp_path, state_dict):
    write_weights(tmp_path / "net.pt", state_dict, {})
    with pytest.raises(
        ValueError, match=r"name must be None, .* is no HDF5 file\. Got 'a' instead"
    ):
        read_weights(tmp_path / "net.pt", name="a")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, network, state_dict, dtype):
    expected = {
        name: tensor.to(dtype).float() if tensor.is_floating_point() else tensor
        for name, tensor in state_dict.items()
    }
    write_weights(tmp_path / "net.pt", network.to(dtype).state_dict(), {})
    assert_same(read_weights(tmp_path / "net.pt")[0], expected)


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
def test_other_precisions_and_byte_orders_of_hdf5_become_float32(tmp_path, state_dict, dtype):
    path = tmp_path / "x.hdf5"
    write_hdf5(path, {"MICRANet/a": state_dict})
    values = np.asarray(state_dict["linear.weight"]).astype(dtype)
    with h5py.File(path, "a") as file:
        del file["MICRANet/a/linear1.weight"]
        file["MICRANet/a/linear1.weight"] = values
        assert file["MICRANet/a/linear1.weight"].dtype == dtype
    expected = {**state_dict, "linear.weight": torch.tensor(values.astype("f4"))}
    assert_same(read_weights(path)[0], expected)


def test_weights_that_are_not_floating_point(tmp_path, state_dict):
    torch.save({**state_dict, "linear.bias": torch.ones(3, dtype=torch.int8)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"linear\.bias must be of floating-point.*torch\.int8"):
        read_weights(tmp_path / "x.pt")


# --- architecture ---------------------------------------------------------------------------


@pytest.mark.parametrize(("n_channels", "n_outputs", "n_filters"), [(1, 1, 32), (3, 7, 1)])
def test_architecture_of_a_network(n_channels, n_outputs, n_filters):
    sizes = {"n_channels": n_channels, "n_outputs": n_outputs, "n_filters": n_filters}
    network = MicraNet(**sizes)
    random_state = torch.get_rng_state()
    assert architecture_of(network.state_dict()) == sizes
    assert torch.equal(torch.get_rng_state(), random_state)


def test_names_that_are_not_a_micranet_s(state_dict):
    parallel = {f"module.{name}": tensor for name, tensor in state_dict.items()}
    message = (
        "missing: depth1.conv_a.weight, depth1.conv_a.bias, depth1.norm_a.weight and 55 more; "
        "unexpected: module.depth1.conv_a.weight, module.depth1.conv_a.bias, "
        "module.depth1.norm_a.weight and 55 more. Save"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        architecture_of(parallel)
    with pytest.raises(ValueError, match=r"missing: none; unexpected: linear2\.bias\. Save"):
        architecture_of({**state_dict, "linear2.bias": state_dict["linear.bias"]})


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("linear.weight", torch.ones(3, 17), r"of shape \(3, 16\), .*2 filters.* Got \(3, 17\)"),
        ("linear.weight", torch.ones(3, 16, 1, 1), r"2 dimensions.* Tensor of shape \(3, 16, 1, 1"),
        ("linear.bias", torch.ones(4), r"of shape \(3,\), .* Got \(4,\) instead"),
        ("depth1.conv_a.weight", torch.ones(2, 0, 3, 3), r"none of them empty.* \(2, 0, 3, 3\)"),
        ("depth3.conv_b.weight", torch.ones(8, 8, 5, 5), r"\(8, 8, 3, 3\), .* Got \(8, 8, 5, 5\)"),
        ("depth4.norm_b.num_batches_tracked", torch.ones(1), r"0 dimensions.* of shape \(1,\)"),
        ("linear.bias", np.ones(3), r"a tensor of 1 dimensions.* Got ndarray of shape \(3,\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(state_dict, name, tensor, message):
    with pytest.raises(ValueError, match=f"^{re.escape(name)} must be .*{message}"):
        architecture_of({**state_dict, name: tensor})
