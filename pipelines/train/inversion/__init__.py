"""Training of the network that makes pseudo-words."""
