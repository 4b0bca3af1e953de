"""The app's side of the engine: the client of its process, and why a process died."""
