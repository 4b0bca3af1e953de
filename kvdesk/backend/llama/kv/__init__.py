"""KV cells: how llama.cpp lays out a saved state, and moving, converting and keeping it."""
