"""The command `sluice`, and `python -m services.cli`."""

import sys


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        from services.cli.serve import serve

        sys.exit(serve(sys.argv[2:]))
    from services.cli.main import app

    app(prog_name="sluice")


if __name__ == "__main__":
    main()
