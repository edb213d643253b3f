"""One file per data set: its files on disk -> a pack."""
