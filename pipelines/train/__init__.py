"""Programs that train models, one package per model family; `common` holds what they share."""
