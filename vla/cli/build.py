"""From config dataclasses to the things they name: every choice is an explicit case and imports only what it needs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import vla
from policies.config import PolicyConfig, PolicyKind
from vla.errors import CheckpointError, ConfigError, unknown_name
from vla.types import Policy

if TYPE_CHECKING:
    from envs.base import TabletopEnv
    from envs.config import EnvConfig


def build_env(config: EnvConfig) -> TabletopEnv:
    """Returns the simulated tabletop that `config` describes; raises ConfigError on an unknown task or camera."""
    import envs

    return envs.make(config)


def build_policy(config: PolicyConfig, env: TabletopEnv | None = None) -> Policy:
    """Returns the policy that `config` describes.

    Args:
        config: kind, checkpoint and how chunks are executed.
        env: the environment the policy will act in; only the scripted expert, which reads its hidden state, needs it.

    Raises:
        CheckpointError: the checkpoint is missing, truncated or foreign.
        ConfigError: a setting is missing or does not fit.
    """
    match config.kind:
        case PolicyKind.CHECKPOINT:
            from policies.vla_policy import VlaPolicy

            return VlaPolicy.from_checkpoint(find_checkpoint(config.path), config)
        case PolicyKind.EXPERT:
            return _build_expert(env)
        case PolicyKind.RANDOM:
            from policies.random import RandomPolicy

            return RandomPolicy()
        case PolicyKind.HOLD:
            from policies.hold import HoldPolicy

            return HoldPolicy()
        case PolicyKind.REMOTE:
            check_serving_installed()
            from policies.remote import RemotePolicy

            return RemotePolicy.from_config(config)


def find_checkpoint(name_or_path: str) -> Path:
    """Returns the directory of a checkpoint given by path, or by the name of one shipped inside the package.

    The path of a training run stands for its newest checkpoint.
    A shipped name wins over a folder of the same name; write `./tiny` for the folder.
    """
    shipped = shipped_checkpoints()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path).expanduser()
    if not name_or_path:
        raise ConfigError(
            f"no checkpoint given; give its path, or a shipped one: {', '.join(shipped) or 'none here'}"
        )
    if path.is_dir():
        from vla.checkpoints import native

        return native.find(path)  # now, and once: `latest` may move while processes start
    if path.exists():
        raise CheckpointError(
            f"{path} is a file; a checkpoint is a directory with model.safetensors and config.json"
        )
    if not shipped:
        raise CheckpointError(f"no directory {name_or_path}; give the directory of a checkpoint")
    unknown = unknown_name("checkpoint", name_or_path, shipped)
    raise CheckpointError(f"{unknown}; or give the directory of a checkpoint")


def check_serving_installed() -> None:
    """Raises ConfigError when what the servers and `policy=remote` need is not installed."""
    if importlib.util.find_spec("websockets") is None:
        raise ConfigError(
            "policy servers and policy=remote need websockets; pip install 'vla[serve]'"
        )


def shipped_checkpoints() -> dict[str, Path]:
    """Returns name and directory of every checkpoint inside the package."""
    root = Path(vla.__file__).resolve().parent / "pretrained"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def _build_expert(env: TabletopEnv | None) -> Policy:
    from envs.experts import make_expert
    from policies.scripted_expert import ScriptedExpertPolicy

    if env is None:
        raise ConfigError(
            "the scripted expert reads the simulator's state; use policy=expert in `vla eval` only"
        )
    return ScriptedExpertPolicy(make_expert(env))
