"""The training step of narrow networks as machine code on one CPU core."""
