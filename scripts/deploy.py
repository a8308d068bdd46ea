"""The same as `vla deploy`: python scripts/deploy.py name=VALUE ..."""

import sys

from vla.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["deploy", *sys.argv[1:]]))
