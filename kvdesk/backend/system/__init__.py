"""This machine: its memory, its devices, and what a process holds of them."""
