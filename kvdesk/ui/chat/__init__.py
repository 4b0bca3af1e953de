"""The conversation: transcript and messages, composer, list of conversations."""
