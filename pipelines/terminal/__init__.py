"""What commands show in a terminal: answers, progress, tables of hits."""
