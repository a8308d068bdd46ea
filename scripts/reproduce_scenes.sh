#!/usr/bin/env bash
# Makes what is learnt from labelled scenes: the scenes, the mask codec, the towers, the model that answers.
# Every step goes on where it stopped: run the same command again after an interruption.
#
#   scripts/reproduce_scenes.sh [WORK_FOLDER]      default: outputs/scenes
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mkdir -p "${1:-outputs/scenes}" && cd "${1:-outputs/scenes}" && pwd)"
vla() { .venv/bin/vla "$@"; }
scenes="scenes=['$work/still_train96','$work/still_val96']"

vla collect labels=true root="$work/still_train96" episodes=30000 seed=0 run_directory="$work/collect_train96"
vla collect labels=true root="$work/still_val96" episodes=2000 seed=1000000 run_directory="$work/collect_val96"
# Read once, at the end: nothing was chosen by these
vla collect labels=true root="$work/held_out96" episodes=600 seed=1500000 run_directory="$work/collect_held_out96"

# The mask codec in vla/pretrained/mask_codec
vla pretrain mask_codec "$scenes" mask_codec.drawn_fraction=0.35 \
  training.num_threads=1 resume=true run_directory="$work/mask_codec"
.venv/bin/python scripts/ship_mask_codec.py "$work/mask_codec" vla/pretrained/mask_codec "$work/still_val96"

# A tower by contrast with captions (the small Prismatic's; the model below has one of its own)
vla pretrain siglip "$scenes" image_size=96 tower.width=96 tower.depth=2 tower.patch_size=16 \
  contrastive.text_depth=2 contrastive.max_text_tokens=48 \
  training.num_threads=1 training.steps=3500 resume=true run_directory="$work/siglip"

# The tower of the model that answers, and the model. A run of 1782 steps (39 CPU-minutes) was measured: docs/pretraining.md.
# It was still improving; nobody has yet seen how far these 6000 steps get. vlm/summary.json says it, for those seeds
# that the run itself looks at; vla examine, for those that nothing was chosen by.
vla pretrain objects "$scenes" training.num_threads=1 training.steps=2400 resume=true run_directory="$work/objects"
vla pretrain multimodal "$scenes" multimodal.mask_codec="$work/mask_codec" "multimodal.vision_from=['$work/objects']" \
  multimodal.weights.caption=0.5 multimodal.location_sigma=8 multimodal.location_weight=3 multimodal.pointing_weight=0.3 \
  multimodal.tasks_per_picture=12 training.steps=6000 training.optim.ema_decay=0.998 training.num_threads=1 \
  resume=true run_directory="$work/vlm"
vla examine "scenes=['$work/held_out96']" checkpoint="$work/vlm" run_directory="$work/examine_vlm"
# Once the figures are good enough to ship:
#   .venv/bin/python scripts/ship_vlm.py "$work/vlm" vla/pretrained/vlm "$work/held_out96"
