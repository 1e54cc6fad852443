"""The command `sluice`, and `python -m sluice.cli`: it minds Ctrl-C before it imports anything."""

import sys

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    try:
        from sluice.cli.dispatch import dispatch

        sys.exit(dispatch(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:  # while something is imported
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
