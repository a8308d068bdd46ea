"""A policy as a service: messages in, answers out, one after the other; and the books of what was asked."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np

from vla.errors import PolicyError, ServingError, VlaError
from vla.serving import numpy_json, wire
from vla.serving.card import PolicyCard
from vla.serving.config import LimitsConfig
from vla.serving.layouts import ObservationReader
from vla.serving.worker import Worker
from vla.types import ActionChunk, Observation, Policy

logger = logging.getLogger(__name__)

_KEPT_TIMES = 10_000
_LOG_INTERVAL_S = 1.0  # a client that sends nothing but nonsense must not fill the disk


class InternalError(ServingError):
    """The policy failed in a way that no client can mend; the traceback is in the log."""


@dataclass
class Books:
    """What was asked and answered since the start."""

    answers: Counter[str] = field(default_factory=Counter[str])  # by protocol
    errors: Counter[str] = field(default_factory=Counter[str])  # by kind
    dropped: int = 0  # observations for which a newer one came before their turn
    infer_ms: list[float] = field(default_factory=list[float])  # the last ones

    def summary(self) -> dict[str, Any]:
        """Returns plain values."""
        times = np.asarray(self.infer_ms or [0.0])
        return {
            "answers": dict(self.answers),
            "errors": dict(self.errors),
            "dropped_observations": self.dropped,
            "infer_ms_p50": round(float(np.percentile(times, 50)), 3),
            "infer_ms_p99": round(float(np.percentile(times, 99)), 3),
        }


class PolicyService:
    """Answers messages of both protocols with one policy, one at a time."""

    def __init__(
        self, policy: Policy, card: PolicyCard, reader: ObservationReader, limits: LimitsConfig
    ) -> None:
        self.card = card
        self.limits = limits
        self.books = Books()
        self._policy, self._reader = policy, reader
        self._worker = Worker()
        self._logged_s, self._num_unlogged = float("-inf"), 0

    def metadata(self) -> dict[str, Any]:
        """Returns what a client is told first: the card, the keys it may send and the limits it must keep."""
        return {
            **self.card.metadata(),
            "layouts": self._reader.keys_by_layout,
            "limits": asdict(self.limits),
        }

    @property
    def is_stuck(self) -> bool:
        """Whether the policy has been at one observation for longer than any request may take."""
        return self._worker.busy_for_s > self.limits.deadline_s

    async def answer_message(self, take: Callable[[], tuple[bytes, float]]) -> dict[str, Any]:
        """Returns openpi's answer to a msgpack observation: actions (steps, width) float32 and timing.

        Args:
            take: called when the turn has come; returns the newest message and when it arrived (time.monotonic).

        Raises:
            ServingError: the message is no observation.
            LateError: the answer would come too late.
            PolicyError: the policy cannot act on it.
        """

        def answer(message: bytes, arrived_s: float) -> dict[str, Any]:
            began_s = time.monotonic()
            observation = self._reader.read(wire.unpack(message, self.limits.wire))
            chunk, infer_ms = self._act(observation)
            has_bins = chunk.probabilities is not None
            return {
                "actions": chunk.actions,
                **({"probabilities": chunk.probabilities} if has_bins else {}),
                "captured_at_s": chunk.captured_at_s,
                "server_timing": {"infer_ms": infer_ms, "wait_ms": 1e3 * (began_s - arrived_s)},
            }

        return await self._run("websocket", lambda: partial(answer, *take()))

    async def answer_json(self, body: bytes) -> str:
        """Returns OpenVLA's answer to `POST /act`: the first action (width,), as json_numpy writes it.

        A payload {"encoded": text} has the request as JSON inside a text, and is answered in kind. Errors as above.
        """

        def answer() -> str:
            payload: Any = numpy_json.loads(body, self.limits.wire)
            is_encoded = isinstance(payload, dict) and "encoded" in payload
            if is_encoded:
                payload = self._decoded(cast(dict[str, Any], payload))
            observation = self._reader.read(cast(object, payload))
            self._reader.check_unnorm_key(cast(dict[str, Any], payload).get("unnorm_key"))
            chunk, _ = self._act(observation)
            text = numpy_json.dumps(chunk.actions[0].astype(np.float64))
            return numpy_json.dumps(text) if is_encoded else text

        return await self._run("rest", lambda: answer)

    def warm_up(self) -> None:
        """Lets the policy act once on black pictures: the first inference of a process allocates and compiles."""
        size = self.card.image_size or 64
        black = np.zeros((size, size, 3), np.uint8)
        state = np.zeros(self.card.state_spec.width, np.float32)
        images = dict.fromkeys(self.card.camera_names, black)
        self._policy.act(Observation(images=images, state=state, instruction="wait"))

    def refused(self, error: Exception) -> str:
        """Returns what a client is told of an error, after entering it in the books."""
        self.books.errors[type(error).__name__] += 1
        text = " ".join(str(error).split())
        if time.monotonic() - self._logged_s > _LOG_INTERVAL_S:
            logger.info("refused: %s (and %d before)", text[:300], self._num_unlogged)
            self._logged_s, self._num_unlogged = time.monotonic(), 0
        else:
            self._num_unlogged += 1
        return text

    def stop(self) -> None:
        """Ends the policy's thread."""
        self._worker.stop()

    async def _run[T](self, protocol: str, begin: Callable[[], Callable[[], T]]) -> T:
        try:
            answer = await self._worker.run(begin, self.limits.deadline_s)
        except VlaError:
            raise
        except Exception as error:
            logger.exception("an answer failed")
            raise InternalError(
                f"internal error: {type(error).__name__}; the server's log has the rest"
            ) from error
        self.books.answers[protocol] += 1
        return answer

    def _act(self, observation: Observation) -> tuple[ActionChunk, float]:
        """Returns the policy's chunk and how long it took; raises PolicyError when it gives none."""
        began_s = time.perf_counter()
        chunk = self._policy.act(observation)
        infer_ms = 1e3 * (time.perf_counter() - began_s)
        expected = self.card.action_spec.width
        actions = np.asarray(chunk.actions)
        if actions.ndim != 2 or actions.shape[1] != expected or not len(actions):
            raise PolicyError(
                f"the policy gave actions of shape {actions.shape}; expected (steps, {expected})"
            )
        if not np.isfinite(actions).all():
            raise PolicyError("the policy gave an action that is not finite; nothing was sent")
        self.books.infer_ms.append(infer_ms)
        del self.books.infer_ms[:-_KEPT_TIMES]
        return chunk, infer_ms

    def _decoded(self, payload: dict[str, Any]) -> Any:
        """Returns the request inside {"encoded": text}."""
        if set(payload) != {"encoded"} or not isinstance(payload["encoded"], str):
            raise ServingError(
                "a request with `encoded` holds nothing else, and its value is JSON as text"
            )
        return numpy_json.loads(payload["encoded"], self.limits.wire)
