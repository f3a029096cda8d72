"""`python -m dopant` is the command `dopant`."""

from __future__ import annotations

from dopant.cli import main

if __name__ == "__main__":
    main()
