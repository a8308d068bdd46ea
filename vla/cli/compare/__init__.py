"""`vla compare`: `command` is where it starts."""
