#!/usr/bin/env bash
# Success against latency on pick_cube (the shipped policy) and push (the shipped policy, fine-tuned), one report for both.
# Every step goes on where it stopped, but for the evaluations: remove their folders to run them again.
#
#   scripts/reproduce_latency.sh [WORK_FOLDER] [EPISODES]      default: outputs/latency 100
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mkdir -p "${1:-outputs/latency}" && cd "${1:-outputs/latency}" && pwd)"
vla() { .venv/bin/vla "$@"; }

vla collect env=push episodes=1200 seed=0 root="$work/push_data" run_directory="$work/collect"
vla train init_from=tiny "data.roots=['$work/push_data']" resume=true training.steps=2500 training.batch_size=64 \
  training.num_threads=1 training.optim.learning_rate=4e-4 training.optim.warmup_steps=30 \
  training.validate_every=500 data.validation_fraction=0.03 run_directory="$work/train"
sweep=(episodes="${2:-100}" seed=1000000 latency_ms=0,50,100,200,400 batch_size=10
  scheduler=synchronous,asynchronous,temporal_ensemble,real_time_chunking)
vla eval policy=tiny policy.readout=cautious env=pick_cube "${sweep[@]}" run_directory="$work/pick_cube"
vla eval policy="$work/train" env=push "${sweep[@]}" beside="['$work/pick_cube']" run_directory="$work/push"
