"""Dead letters: their envelopes, how they are held, replayed and adopted."""
