#!/usr/bin/env bash
# The three-generation table and the experiments on the text's claims, from nothing. The same command again goes on.
#   scripts/compare_backbones.sh --quick [WORK]   minutes: tiny data, one step of everything; its figures mean nothing
#   scripts/compare_backbones.sh [WORK]           days of one core: results.json, report.html and docs/findings.md
set -euo pipefail
cd "$(dirname "$0")/.."
settings=(findings=docs/findings.md)
name=comparison
if [[ "${1:-}" == "--quick" ]]; then
  shift
  settings=(quick=true "seeds=[0]")
  name=comparison_quick
fi
work="$(mkdir -p "${1:-outputs/$name}" && cd "${1:-outputs/$name}" && pwd)"
export MUJOCO_GL="${MUJOCO_GL:-egl}"

.venv/bin/vla compare "${settings[@]}" work="$work/steps" run_directory="$work/report"
