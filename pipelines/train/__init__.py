"""Programs that train models: one file a model family, `run.py` for what every training run shares."""
