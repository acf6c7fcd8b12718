"""What a file is and what works here, for people and as JSON."""
