"""Pure arithmetic on times and words."""
