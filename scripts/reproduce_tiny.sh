#!/usr/bin/env bash
# Makes the policy in vla/pretrained/tiny: demonstrations, training, evaluation, manifest.
# It first learns to pick up, then all six tasks of the tabletop.
# Every step goes on where it stopped, but for finished evaluations, which are kept: run the same command again.
#
#   scripts/reproduce_tiny.sh [WORK_FOLDER]      default: outputs/tiny
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mkdir -p "${1:-outputs/tiny}" && cd "${1:-outputs/tiny}" && pwd)"
vla() { .venv/bin/vla "$@"; }

collect() { # TASK EPISODES FIRST_SEED
  vla collect env="$1" episodes="$2" seed="$3" instructions_per_scene=2 root="$work/$1" run_directory="$work/collect_$1"
}
collect pick_cube 6000 0
collect push 3000 100000
collect place_in_bowl 4000 100000
collect stack 5000 100000
collect open_drawer 1500 100000
collect reach 1500 100000

vla train experiment=tiny "data.roots=['$work/pick_cube']" resume=true run_directory="$work/train_pick_cube"
vla train experiment=tiny_tabletop init_from="$work/train_pick_cube" resume=true run_directory="$work/train" \
  "data.roots=['$work/pick_cube','$work/push','$work/place_in_bowl','$work/stack','$work/open_drawer','$work/reach']"

for task in reach pick_cube place_in_bowl push stack open_drawer; do
  for variant in clean swap_instruction=true env.instruction_split=held_out env.randomization=hard; do
    name="$work/eval_${task}_${variant%%=*}"
    [ "$task" = open_drawer ] && [ "$variant" = swap_instruction=true ] && continue # it names no object to swap
    [ -e "$name/summary.json" ] && continue
    vla eval policy="$work/train" env="$task" episodes=100 seed=1000000 ${variant#clean} run_directory="$name"
  done
done
.venv/bin/python scripts/ship_policy.py "$work" vla/pretrained/tiny
