"""Train the network that makes pseudo-words."""
