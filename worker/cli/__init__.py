"""The command line: one file for each group of commands, whose implementations are in `worker.commands`."""
