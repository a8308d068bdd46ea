#!/usr/bin/env bash
# Makes the policy in vla/pretrained/tiny: demonstrations, training, evaluation, manifest.
# Every step goes on where it stopped: run the same command again after an interruption.
#
#   scripts/reproduce_tiny.sh [WORK_FOLDER]      default: outputs/tiny
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mkdir -p "${1:-outputs/tiny}" && cd "${1:-outputs/tiny}" && pwd)"
vla() { .venv/bin/vla "$@"; }

vla collect env=pick_cube episodes=6000 instructions_per_scene=2 seed=0 root="$work/pick_cube" \
  run_directory="$work/collect"
vla train experiment=tiny "data.roots=['$work/pick_cube']" resume=true run_directory="$work/train"
for variant in "" swap_instruction=true black_image=true env.instruction_split=held_out; do
  vla eval policy="$work/train" env=pick_cube episodes=200 seed=1000000 $variant \
    run_directory="$work/eval${variant:+_${variant%%=*}}"
done
.venv/bin/python scripts/ship_policy.py "$work" vla/pretrained/tiny
