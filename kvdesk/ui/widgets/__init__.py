"""Small widgets, the theme, icons and number formats."""
