"""How fast and how large each session is on this machine."""
