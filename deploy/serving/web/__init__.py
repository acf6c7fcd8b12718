"""HTTP: routes for programs, people and operators, and what surrounds every request."""
