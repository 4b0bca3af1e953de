"""What is well and what is not with kvdesk on this machine, and what to do about it (``kvdesk doctor``)."""
