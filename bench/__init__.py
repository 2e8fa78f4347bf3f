"""`bench`: how fast this machine is at the worker's work, against the alternatives in the same run."""
