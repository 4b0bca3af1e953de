"""What llama.cpp has allocated, or would allocate."""
