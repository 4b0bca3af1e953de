"""The memory log of a session: written while it runs, read and exported afterwards."""
