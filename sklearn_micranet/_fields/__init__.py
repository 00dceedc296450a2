"""Whole fields of view: read in tiles, scored on a grid of windows, objects put together."""
