"""From feature maps to masks."""
