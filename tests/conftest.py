"""What every test runs under: no screen, no network, one thread, and tensor shapes checked at every call.

Set here, before anything heavy is imported.
"""

import os

from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: threads cost more than they give
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Annotations such as Float[Tensor, "batch tokens width"] become checks, here and nowhere else.
install_import_hook(
    ["vla.nn", "vla.tokenizers", "vla.models", "vla.losses", "vla.inference"], "beartype.beartype"
)

# A loaded machine must not fail a property test, and a submission not fail by an example that its author never saw.
settings.register_profile("vla", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("vla")
