"""Train a generator of pseudo-targets."""
