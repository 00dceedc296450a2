"""The network, its local maps and its weights."""
