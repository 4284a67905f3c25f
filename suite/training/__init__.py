"""Training of one network under a proxy: images on the device, recipe, loop, checkpoints."""
