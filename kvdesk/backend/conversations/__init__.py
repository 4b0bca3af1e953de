"""Conversations: their values, their database, their files, their KV cells on disk."""
