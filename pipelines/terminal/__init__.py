"""Terminal output of commands: answers, progress, tables of hits."""
