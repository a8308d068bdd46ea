"""`vla doctor`: `command` is where it starts."""
