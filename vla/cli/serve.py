"""`vla serve`: answers openpi's and OpenVLA's clients with a policy until it is told to stop."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.config import PolicyConfig, PolicyKind
from vla.cli import build
from vla.serving.config import ServerConfig

if TYPE_CHECKING:
    from vla.serving.card import PolicyCard
    from vla.serving.server import Listening


@dataclass(kw_only=True)
class ServeConfig(ServerConfig):
    """One policy, offered over the network."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)  # who answers
    seed: int = 0  # of the policy's random draws (policy.temperature > 0)


def run(cfg: ServeConfig, directory: Path) -> dict[str, Any]:
    """Serves until SIGINT or SIGTERM, and returns what was asked and answered."""
    build.check_serving_installed()
    from vla.serving.card import PolicyCard
    from vla.serving.server import PolicyServer

    if cfg.policy.kind is PolicyKind.CHECKPOINT:
        name = cfg.policy.path
    else:
        name = cfg.policy.kind.value
    policy = build.build_policy(cfg.policy)
    policy.reset(cfg.seed)
    card = PolicyCard.of(policy, name)
    server = PolicyServer(policy, card, cfg)
    summary = server.run(lambda listening: print(start_text(cfg, card, listening), flush=True))
    counts = ", ".join(f"{count} over {kind}" for kind, count in summary["answers"].items())
    print(f"stopped; answered {counts or 'nothing'}, refused {sum(summary['errors'].values())}")
    return summary


def start_text(cfg: ServeConfig, card: PolicyCard, listening: Listening) -> str:
    """Returns what a person must know once the server listens: where, who may, what is spoken, and how much."""
    spec, limits = card.action_spec, cfg.limits
    size = f"{card.image_size} x {card.image_size} px" if card.image_size else "any size"
    lines = [
        f"serving {card.name}: {spec.width} numbers per action at {spec.rate_hz:g} Hz, "
        f"cameras {', '.join(card.camera_names)} ({size})",
        f"  openpi websocket  {listening.websocket}  (GET /healthz)",
        f"  OpenVLA REST      {listening.rest or 'off (rest_port=null)'}",
        f"  access            {_access_text(cfg, listening)}",
        f"  observations      {', '.join(listening.layouts)}; keys are in the metadata and in docs/serving.md",
        f"  limits            {limits.max_message_mb:g} MB a message, {limits.max_clients} clients, "
        f"{limits.messages_per_s:g} messages a second each, answer within {limits.deadline_s:g} s",
        f"  gripper           {card.metadata()['gripper']}",
    ]
    if not cfg.is_loopback and not listening.has_tls:
        lines += _tls_advice(listening)
    return "\n".join([*lines, "stop with Ctrl-C"])


def _access_text(cfg: ServeConfig, listening: Listening) -> str:
    reach = "this machine only" if cfg.is_loopback else "every machine that can reach this address"
    token = "Authorization: Api-Key TOKEN" if listening.needs_token else "no token"
    return f"{reach}; {token}; {'TLS' if listening.has_tls else 'no TLS'}"


def _tls_advice(listening: Listening) -> list[str]:
    port = listening.websocket.rpartition(":")[2]
    return [
        "  warning           token and pictures travel unencrypted. Either give tls_certificate=PEM tls_key=PEM,",
        f"                    or keep host=127.0.0.1 and put TLS in front: caddy reverse-proxy --from HOSTNAME "
        f"--to {shlex.quote('127.0.0.1:' + port)}",
        f"                    or tunnel: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE",
    ]
