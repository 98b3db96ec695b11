"""How fast searching and indexing are, and how much code a search crosses."""
