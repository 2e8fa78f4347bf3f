"""`python -m worker`: the same as `klipstream-worker`."""

from worker.cli import main

main()
