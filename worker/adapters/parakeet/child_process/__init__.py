"""The inference process: its program, its end of the pipe and the loop between them."""
