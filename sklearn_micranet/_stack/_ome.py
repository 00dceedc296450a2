"""Where OME-Zarr keeps its metadata."""


def ome_metadata(group):
    """Return the metadata of a group, which version 0.5 nests."""
    return group.attrs.get("ome", group.attrs)
