"""Data sets: where they come from, their formats, their cache, their augmentation."""
