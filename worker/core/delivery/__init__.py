"""Messages: pulled into free slots, kept leased, settled. Knows nothing of speech."""
