"""The command line: one module a group of commands, and the root that joins them."""
