"""What a model file says of itself: header, metadata, layers."""
