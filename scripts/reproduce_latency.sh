#!/usr/bin/env bash
# Success of the shipped policy against latency on push and pick_cube, one report for both.
# Finished parts are kept: remove a folder to measure it again.
#
#   scripts/reproduce_latency.sh [WORK_FOLDER] [EPISODES]      default: outputs/latency 60
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mkdir -p "${1:-outputs/latency}" && cd "${1:-outputs/latency}" && pwd)"

sweep=(policy=tiny policy.readout=cautious episodes="${2:-60}" seed=1000000 latency_ms=0,50,100,200,400 batch_size=10
  scheduler=synchronous,asynchronous,temporal_ensemble,real_time_chunking)
for task in pick_cube push; do
  [ -e "$work/$task/summary.json" ] && continue
  beside=()
  [ "$task" = push ] && beside=("beside=['$work/pick_cube']")
  .venv/bin/vla eval env="$task" "${sweep[@]}" "${beside[@]}" run_directory="$work/$task"
done
