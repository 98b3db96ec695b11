"""A collection's folder on disk: where things lie, how files become durable, and who may write."""
