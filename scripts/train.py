"""The same as `vla train`: python scripts/train.py name=VALUE ..."""

import sys

from vla.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
