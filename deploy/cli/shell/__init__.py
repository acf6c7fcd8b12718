"""What all commands have in common: help, examples, defaults from a file, completion."""
