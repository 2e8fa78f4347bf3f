"""The command `klipstream-worker`, also `python -m worker`; on the base install it says what is missing."""

import sys

NEEDED = """\
klipstream-worker: {reason}; the base install holds worker.client and schemas alone.
The commands need Python 3.11 or newer and: pip install 'klipstream-worker[worker,parakeet]'"""


def main() -> None:
    """Run the command line. Where its packages are not installed, exit 1 and name them."""
    if sys.version_info < (3, 11):
        sys.exit(NEEDED.format(reason="this is Python {}.{}".format(*sys.version_info)))
    try:
        from worker.cli.main import main as command_line  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C\n")
        sys.exit(130)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] in {"worker", "schemas"}:
            raise
        sys.exit(NEEDED.format(reason=f"{exc.name} is not installed"))
    command_line()


if __name__ == "__main__":
    main()
