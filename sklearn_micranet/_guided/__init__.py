"""From image-level labels to outlines: gate, choice of features, intensity, texture."""
