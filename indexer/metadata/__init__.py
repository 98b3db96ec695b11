"""A collection's metadata in SQL: generations, documents, filters, jobs."""
