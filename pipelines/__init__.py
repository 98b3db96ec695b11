"""Programs that make, measure and run: the command line, evaluation, training."""
