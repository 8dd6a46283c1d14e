"""`python -m simulations`: see `simulations.cli.main`."""

from simulations.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
