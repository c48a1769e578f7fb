"""`python -m dumbwaiter`."""

from dumbwaiter.cli import main

if __name__ == "__main__":
    main()
