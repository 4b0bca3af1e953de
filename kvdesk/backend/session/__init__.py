"""What one run of kvdesk knows of its engine, in one value, and the commands that change it. For window and terminal alike."""
