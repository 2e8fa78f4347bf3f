"""Implementations of the commands; each is imported only when it is run, so that the others start fast."""
