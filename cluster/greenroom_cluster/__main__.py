"""`python -m greenroom_cluster` is the command `greenroom`."""

from greenroom_cluster.cli import main

if __name__ == "__main__":
    main()
