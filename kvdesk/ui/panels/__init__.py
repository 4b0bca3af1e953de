"""The window's cards and bars outside chat, memory and settings."""
