#!/usr/bin/env bash
# Resolves the dependencies of pyproject.toml anew into the two hash-locked files that setup.sh installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv="${UV:-$(command -v uv || echo .venv-uv/bin/uv)}"

compile() {
  "$uv" pip compile --quiet --universal --python-version 3.12 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate \
    --custom-compile-command "make lock" "$@" pyproject.toml
}

compile --extra dev --extra serve --extra hardware --output-file requirements.lock
# The same versions plus what LIBERO needs.
compile --extra dev --extra serve --extra hardware --extra libero \
  --constraint requirements.lock --output-file requirements-all.lock
