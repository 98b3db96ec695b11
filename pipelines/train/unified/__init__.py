"""Training of one model for texts, images and both."""
