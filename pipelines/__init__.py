"""Programs on top of the library: the command line, evaluation, training."""
