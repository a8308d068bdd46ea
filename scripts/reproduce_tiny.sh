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
collect place_in_bowl 8000 100000
collect stack 5000 100000
collect open_drawer 1500 100000
collect reach 1500 100000

vla train experiment=tiny "data.roots=['$work/pick_cube']" resume=true run_directory="$work/train_pick_cube"

roots="data.roots=['$work/pick_cube','$work/push','$work/place_in_bowl','$work/stack','$work/open_drawer','$work/reach']"
tabletop() { # PART FROM STEPS LEARNING_RATE WEIGHTS [SETTING...]: the weights are in the order of the roots
  vla train experiment=tiny_tabletop init_from="$work/$2" "$roots" training.steps="$3" training.optim.learning_rate="$4" \
    data.weights="$5" resume=true run_directory="$work/$1" "${@:6}"
}
tabletop train_1 train_pick_cube 4160 1e-3 [0.9,1.5,0.5,1.0,2.0,2.2] data.statistics_from_data=true
tabletop train_2 train_1 984 6e-4 [0.4,2.0,1.1,0.8,0.7,0.7] training.optim.ema_decay=0.998
tabletop train_3 train_2 3005 1e-3 [0.35,1.0,1.1,0.4,1.5,2.0]
tabletop train_4 train_3 846 5e-4 [0.4,1.1,0.85,0.5,1.8,2.0] training.optim.ema_decay=0.998 data.unknown_words=0.12
tabletop train_5 train_4 482 5e-4 [0.4,1.1,0.85,0.5,1.8,2.0] training.optim.ema_decay=0.995 data.unknown_words=0.15

for task in reach pick_cube place_in_bowl push stack open_drawer; do
  for variant in clean swap_instruction=true env.instruction_split=held_out env.randomization=hard; do
    name="$work/eval_${task}_${variant%%=*}"
    [ "$task" = open_drawer ] && [ "$variant" = swap_instruction=true ] && continue # it names no object to swap
    [ -e "$name/summary.json" ] && continue
    vla eval policy="$work/train_5" env="$task" episodes=100 seed=1000000 ${variant#clean} run_directory="$name"
  done
done
.venv/bin/python scripts/ship_policy.py "$work" vla/pretrained/tiny
