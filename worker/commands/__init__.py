"""What each command of the CLI does; imported by the command that is run, so that the others start fast."""
