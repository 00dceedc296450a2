"""Where the published data sets live, with their SHA-256 digests."""

from typing import NamedTuple


class RemoteFile(NamedTuple):
    """A published file and its place in the data folder.

    Parameters
    ----------
    path : str
        Place below the data folder, with forward slashes.
    url : str
        Address of the file.
    sha256 : str or None
        Published digest, 64 hexadecimal digits. ``None`` where nobody publishes one.
    """

    path: str
    url: str
    sha256: str | None


MNIST = RemoteFile(
    "mnist/mnist.npz",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)

_CELL_TRACKING_SHA256 = {
    "training-datasets": {
        "DIC-C2DH-HeLa": "832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a",
        "Fluo-C2DL-MSC": "a083521f0cb673ae02d4957c5e6580c2e021943ef88101f6a2f61b944d671af2",
        "Fluo-N2DH-GOWT1": "1a7bd9a7d1d10c4122c7782427b437246fb69cc3322a975485c04e206f64fc2c",
        "Fluo-N2DL-HeLa": "35dd99d58e071aba0b03880128d920bd1c063783cc280f9531fbdc5be614c82e",
        "PhC-C2DH-U373": "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
        "PhC-C2DL-PSC": "9d54bb8febc8798934a21bf92e05d92f5e8557c87e28834b2832591cdda78422",
    },
    "test-datasets": {
        "DIC-C2DH-HeLa": "5e5d5f2aa90aef99d750cf03f5c12d799d50b892f98c86950e07a2c5955ac01f",
        "Fluo-C2DL-MSC": "c90b13e603dde52f17801d4f0cadde04ed7f21cc05296b1f0957d92dbfc8ffa6",
        "Fluo-N2DH-GOWT1": "c6893ec2d63459de49d4dc21009b04275573403c62cc02e6ee8d0cb1a5068add",
        "Fluo-N2DL-HeLa": "45cf3daf05e8495aa2ce0febacca4cf0928fab808c0b14ed2eb7289a819e6bb8",
        "PhC-C2DH-U373": "7aa3162e4363a416b259149adc13c9b09cb8aecfe8165eb1428dd534b66bec8a",
        "PhC-C2DL-PSC": "8c98ac6203e7490157ceb6aa1131d60a3863001b61fb75e784bc49d47ee264d5",
    },
}
_CELL_TRACKING_FOLDERS = {"train": "training-datasets", "test": "test-datasets"}

CELL_TRACKING = {
    subset: {
        name: RemoteFile(
            f"cell_tracking/{folder}/{name}.zip",
            f"http://data.celltrackingchallenge.net/{folder}/{name}.zip",
            sha256,
        )
        for name, sha256 in _CELL_TRACKING_SHA256[folder].items()
    }
    for subset, folder in _CELL_TRACKING_FOLDERS.items()
}

P_VIVAX = RemoteFile(
    "p_vivax/malaria.zip", "https://data.broadinstitute.org/bbbc/BBBC041/malaria.zip", None
)

F_ACTIN = RemoteFile(
    "f_actin/MICRA-Net.tar.gz", "https://s3.valeria.science/flclab-micranet/MICRA-Net.tar.gz", None
)
