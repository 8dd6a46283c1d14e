"""`python -m simulations`: see `simulations.cli`."""

from simulations.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
