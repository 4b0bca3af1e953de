"""The only room that imports llama_cpp. Only the engine, dry-run and network-worker processes come in here."""
