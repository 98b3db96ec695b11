"""What reads the data sets: each module turns the files of one into a `Task`."""
