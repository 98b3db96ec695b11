"""Composed queries on product photos: their rules and their builder."""
