"""Qt: shows and asks. Decides nothing that a test without Qt could check; works on the main thread only."""
