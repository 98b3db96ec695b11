"""A collection's folder on disk: where things lie, how bytes get there for good, who may write."""
