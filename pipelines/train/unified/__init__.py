"""Train one model for texts, images and both."""
