"""What settings will cost, before they are applied."""
