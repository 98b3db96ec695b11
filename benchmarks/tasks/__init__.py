"""Readers of the data sets: each module turns the files of one into a `Task`."""
