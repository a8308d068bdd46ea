#!/usr/bin/env bash
# Makes .venv ready: Python 3.12, the hash-locked requirements, this package, and a software renderer.
#
#   scripts/setup.sh          what demo, test and check need
#   scripts/setup.sh --all    also the LIBERO benchmark and the drivers of real arms
#
# A second run finds its stamp and ends at once. PYTHON=/path/to/python3.12 and UV=/path/to/uv override the search.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
unset VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME # another environment may be active in this shell

lock=requirements.lock
case "${1:-}" in
  "") ;;
  --all) lock=requirements-all.lock ;;
  *) echo "setup: unknown option '$1'; the only one is --all" >&2 && exit 2 ;;
esac
stamp=.venv/.setup-stamp

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2 && exit 1; }

main() {
  if command -v flock >/dev/null; then # two makes at once would write the same .venv
    exec 9>.setup.lock
    flock 9
  fi
  if ! is_stamped; then
    local python
    find_uv
    python="$(find_python)"
    install_packages "$python"
    fingerprint >"$stamp"
    say "ready ($(.venv/bin/python --version), $lock)"
  fi
  check_renderer
}

# The folder belongs to it: an editable install and the scripts in .venv/bin hold absolute paths.
fingerprint() { { pwd -P && cat "$lock" pyproject.toml scripts/setup.sh; } | sha256sum; }

is_stamped() {
  [ -f "$stamp" ] && [ "$(fingerprint)" = "$(cat "$stamp")" ] && .venv/bin/python -c "" 2>/dev/null
}

is_version() { [ -n "$1" ] && "$1" -c "import sys; sys.exit(sys.version_info[:2] != ($2))" 2>/dev/null; }

find_uv() {
  local candidate
  for candidate in "${UV:-}" "$(command -v uv || true)" "${HOME:-/root}/.local/bin/uv" "$PWD/.venv-uv/bin/uv"; do
    if [ -n "$candidate" ] && "$candidate" --version >/dev/null 2>&1; then
      uv="$candidate"
      return
    fi
  done
  say "installing uv into .venv-uv"
  make_uv_environment
  .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1" ||
    stop "pip could not install uv; is a package registry reachable? Otherwise set UV=/path/to/uv"
  uv="$PWD/.venv-uv/bin/uv"
}

make_uv_environment() {
  local base
  base="$(command -v python3 || true)"
  if [ -z "$base" ] || ! python3 -c "import ensurepip, venv" 2>/dev/null; then
    install_debian python3 python3-venv
    base="$(command -v python3 || true)"
  fi
  rm -rf .venv-uv
  "$base" -m venv .venv-uv || stop "$base cannot make a virtual environment"
}

# Prints the path of a Python 3.12; a newer one only where 3.12 can neither be found nor downloaded.
find_python() {
  local candidate pyenv_root minor
  pyenv_root="$(pyenv root 2>/dev/null || true)"
  for minor in 12 13; do
    for candidate in "${PYTHON:-}" "$(command -v "python3.$minor" || true)" "$(command -v python3 || true)" \
      "$pyenv_root"/versions/3."$minor"*/bin/python3 "${HOME:-/root}"/.pyenv/versions/3."$minor"*/bin/python3 \
      "$("$uv" python find --no-python-downloads --no-project "3.$minor" 2>/dev/null || true)"; do
      if is_version "$candidate" "3, $minor"; then
        echo "$candidate"
        return
      fi
    done
    if [ "$minor" = 12 ] && "$uv" python install --quiet 3.12 2>/dev/null; then
      "$uv" python find --no-project 3.12
      return
    fi
  done
  stop "needs Python 3.12, and uv could not download it; install it and run PYTHON=/path/to/python3.12 make setup"
}

install_packages() {
  local made_for
  made_for="$(cat .venv/.made-for 2>/dev/null || true)"
  if [ "$made_for" != "$(pwd -P)" ] || ! .venv/bin/python -c "" 2>/dev/null; then
    say "making .venv with $("$1" --version)"
    "$uv" venv --quiet --no-project --clear --python "$1" .venv
    pwd -P >.venv/.made-for
  fi
  say "installing $(grep -c == "$lock") locked packages (the first time some 3 GB are fetched)"
  "$uv" pip install --quiet --python .venv/bin/python --require-hashes --requirement "$lock" ||
    stop "the locked packages could not be installed; the lines above say why"
  "$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable . ||
    stop "this package could not be installed; the lines above say why"
}

check_renderer() {
  export MUJOCO_GL="${MUJOCO_GL:-egl}"
  .venv/bin/python scripts/check_renderer.py 2>/dev/null && return
  case "$MUJOCO_GL" in
    egl) install_debian libegl1 libgl1-mesa-dri libopengl0 ;;
    osmesa) install_debian libosmesa6 ;;
  esac
  .venv/bin/python scripts/check_renderer.py ||
    stop "MuJoCo cannot draw with MUJOCO_GL=$MUJOCO_GL; the lines above say why. Try the other of egl and osmesa"
}

install_debian() {
  local packages="$*"
  command -v apt-get >/dev/null || stop "install what provides Debian's $packages, then run this again"
  [ "$(id -u)" = 0 ] || stop "run this once: sudo apt-get install -y $packages"
  say "installing $packages"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null ||
    stop "apt-get could not install $packages"
}

main
