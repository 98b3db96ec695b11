"""What SQL knows of a collection: generations, documents, filters, jobs."""
