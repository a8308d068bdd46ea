"""The same as `vla eval`: python scripts/evaluate.py name=VALUE ..."""

import sys

from vla.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
