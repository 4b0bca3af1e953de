"""Start, window, and the application that joins what stands behind it."""
