"""What travels: jobs, events, dead letters, and the JSON Schema files made from them. Python 3.10 on."""
