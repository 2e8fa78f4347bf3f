"""Messages: jobs, events, dead letters, and the JSON Schema files generated from them. Python 3.10 or newer."""
