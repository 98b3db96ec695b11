"""Write to a collection: single documents, the batch job, and the writer that commits both."""
