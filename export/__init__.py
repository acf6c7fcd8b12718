"""resdeploy."""
