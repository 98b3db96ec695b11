"""A collection's folder on disk: its layout, durable writes, and the writer's lock."""
