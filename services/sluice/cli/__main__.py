"""The command `sluice`, and `python -m sluice.cli`."""

import sys


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        from sluice.cli.serve import serve

        sys.exit(serve(sys.argv[2:]))
    from sluice.cli.main import app

    app(prog_name="sluice")


if __name__ == "__main__":
    main()
