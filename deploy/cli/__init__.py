"""The commands. The only place below `export` that names the packages above `deploy`."""
