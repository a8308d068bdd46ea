"""`vla describe`: `command` is where it starts."""
