#!/usr/bin/env bash
# The three-generation table and the experiments on the text's claims, from nothing. The same command again goes on.
#   scripts/compare_backbones.sh --quick [WORK]    minutes: tiny data, one step of everything; its figures mean nothing
#   scripts/compare_backbones.sh --laptop [WORK]   five and a half hours of one core; then findings in docs/findings.md
#   scripts/compare_backbones.sh [WORK]            the same at full size: days of one core
set -euo pipefail
cd "$(dirname "$0")/.."
settings=(findings=docs/findings.md)
name=comparison
case "${1:-}" in
  --quick)
    shift
    settings=(quick=true "seeds=[0]")
    name=comparison_quick
    ;;
  --laptop)
    shift
    settings+=(sizes=laptop)
    name=comparison_laptop
    ;;
esac
work="$(mkdir -p "${1:-outputs/$name}" && cd "${1:-outputs/$name}" && pwd)"
export MUJOCO_GL="${MUJOCO_GL:-egl}"

.venv/bin/vla compare "${settings[@]}" work="$work/steps" run_directory="$work/report"
