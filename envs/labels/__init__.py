"""What a simulation knows about its pictures, as numbers, masks and words."""
