"""Speed of search and indexing, and the amount of code that a search runs through."""
