"""Training of a generator of pseudo-targets."""
