"""The few errors this package raises on purpose; the command line prints them as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VlaError(Exception):
    """Something the caller can mend. The message says what was wrong, what was expected and what to do."""


class ConfigError(VlaError):
    """A setting, name or command-line override is unknown or out of range."""


class DatasetError(VlaError):
    """A dataset is missing something, or a value in it cannot be trained on."""


class CheckpointError(VlaError):
    """A checkpoint is missing, truncated, of another family, or does not fit the model."""


class ActionError(VlaError):
    """An action is not finite, of the wrong width, or outside its limits."""


class RobotError(VlaError):
    """A robot, simulated or real, cannot be reached or refused a command."""


class PolicyError(VlaError):
    """A policy failed to produce an action chunk."""


class ServingError(VlaError):
    """A message, an address or a token that a policy server or its client cannot accept."""


def unknown_name(kind: str, name: object, choices: Iterable[object]) -> str:
    """Returns the one-line message for a name that is not among `choices`, with the nearest match when there is one.

    Args:
        kind: what the name stands for, e.g. "camera".
        name: the value that was given.
        choices: the accepted names.
    """
    known = sorted(str(choice) for choice in choices)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {str(name)!r}; choose one of {', '.join(known)}{hint}"
