"""The ways into a collection: single documents, the batch job, the writer that commits both."""
