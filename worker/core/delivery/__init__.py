"""Messages: pulling into free slots, leases, settling. Independent of speech."""
