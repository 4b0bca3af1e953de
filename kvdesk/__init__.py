"""kvdesk: a desktop chat over llama.cpp that shows, live, where the memory goes."""

__version__ = "0.1.0"
