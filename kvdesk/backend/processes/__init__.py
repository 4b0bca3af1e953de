"""The entry of each process of its own: engine, dry run, RPC server."""
