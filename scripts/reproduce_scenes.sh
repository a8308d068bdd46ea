#!/usr/bin/env bash
# Makes what is learnt from labelled scenes: the scenes, the mask codec, the towers, the models that answer.
# Every step goes on where it stopped: run the same command again after an interruption.
#
#   scripts/reproduce_scenes.sh [WORK_FOLDER]      default: outputs/scenes
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mkdir -p "${1:-outputs/scenes}" && cd "${1:-outputs/scenes}" && pwd)"
vla() { .venv/bin/vla "$@"; }

vla collect labels=true root="$work/still_train96" episodes=30000 seed=0 run_directory="$work/collect_train96"
vla collect labels=true root="$work/still_val96" episodes=2000 seed=1000000 run_directory="$work/collect_val96"

# The mask codec in vla/pretrained/mask_codec
vla pretrain mask_codec "scenes=['$work/still_train96','$work/still_val96']" mask_codec.drawn_fraction=0.35 \
  training.num_threads=1 resume=true run_directory="$work/mask_codec"
.venv/bin/python scripts/ship_mask_codec.py "$work/mask_codec" vla/pretrained/mask_codec "$work/still_val96"
