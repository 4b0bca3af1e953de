"""What crosses the pipe between the app and the engine process, and the values that everybody shares."""
