"""Composed queries on product photos: their rules, their builder, and the training corpus of the photo model."""
