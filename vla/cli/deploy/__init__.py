"""`vla deploy`: `command` is where it starts."""
