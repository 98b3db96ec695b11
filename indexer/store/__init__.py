"""What a collection keeps: SQL metadata, segments of vectors, media. SQL is the truth; see `indexer/writer.py`."""
