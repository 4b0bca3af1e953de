"""The backend: no Qt here. Usable from the command line, from tests and from the window alike."""
