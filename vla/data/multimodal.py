"""Batches of pictures with questions and answers, by step number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla.data.mask_crops import crop_mask
from vla.data.mixture import Mixture
from vla.data.prefetch import made_ahead
from vla.data.scene_rows import SceneRow
from vla.data.scene_tasks import LabelledObject, LabelledPicture, Task, TaskWeights, draw_tasks
from vla.errors import DatasetError
from vla.models.vision.pictures import resize
from vla.tokenizers.prompt_answer import AnswerPrompts
from vla.tokenizers.prompt_batch import PromptRow

# Returns the codewords (masks, 16) of masks (masks, 64, 64).
EncodeMasks = Callable[[Float[Tensor, "masks 64 64"]], Int[Tensor, "masks 16"]]


@dataclass(kw_only=True)
class MultimodalBatch:
    """What one optimiser step sees. B rows, T tokens.

    Attributes:
        ids: (B, T) heads, questions and answers, right-padded.
        valid: (B, T) False on padding.
        suffix_mask: (B, T) True on answers.
        pictures: of every row, its picture (3, H, W) or clip (T, 3, H, W), uint8.
        documents: (B, T) -1 on the head, then the number of each token's question; None where a row has one alone.
        boxes: (answers, 4) of the object that an answer locates first, shares of the picture; -1 where there is none.
    """

    ids: Int[Tensor, "batch tokens"]
    valid: Bool[Tensor, "batch tokens"]
    suffix_mask: Bool[Tensor, "batch tokens"]
    pictures: list[list[Tensor]]
    documents: Int[Tensor, "batch tokens"] | None = None
    boxes: Float[Tensor, "answers 4"] | None = None

    def to(self, device: torch.device) -> MultimodalBatch:
        """Returns the batch on `device`; itself when it is there already."""
        if self.ids.device == device:
            return self
        return MultimodalBatch(
            ids=self.ids.to(device),
            valid=self.valid.to(device),
            suffix_mask=self.suffix_mask.to(device),
            pictures=[[picture.to(device) for picture in row] for row in self.pictures],
            documents=None if self.documents is None else self.documents.to(device),
            boxes=None if self.boxes is None else self.boxes.to(device),
        )


@dataclass(kw_only=True)
class QuestionConfig:
    """What is asked about each picture."""

    tasks_per_picture: int = 8
    weights: TaskWeights = field(default_factory=TaskWeights)
    is_packed: bool = True  # all questions about a picture in one row behind it


class MultimodalBatches:
    """Batches of one split; `at(step)` is a pure function of (seed, step), so resuming needs only the step.

    Args:
        pictures: what to ask about.
        prompts: instructions and answers to tokens.
        num_image_tokens: of a picture (3, H, W) or clip (T, 3, H, W), given its shape.
        names: of objects that may be asked for where they are not.

    Raises:
        DatasetError: there are no pictures with labels.
    """

    def __init__(
        self,
        pictures: Sequence[LabelledPicture],
        prompts: AnswerPrompts,
        num_image_tokens: Callable[[Sequence[int]], int],
        *,
        batch_size: int,
        names: Sequence[str],
        seed: int = 0,
        cfg: QuestionConfig | None = None,
    ) -> None:
        self._pictures, self._prompts, self._names = pictures, prompts, list(names)
        self._num_image_tokens, self._cfg = num_image_tokens, cfg or QuestionConfig()
        self.batch_size, self._seed = batch_size, seed
        usable = [k for k, item in enumerate(pictures) if self._tasks(item, 0, k)]
        if not usable:
            raise DatasetError(
                "no picture has anything to ask about; collect scenes with labels, or raise a weight above 0"
            )
        self._order = Mixture([np.asarray(usable, np.int64)], [1.0], seed)

    @property
    def num_samples(self) -> int:
        """Pictures in one epoch."""
        return len(self._order)

    @property
    def len_epoch(self) -> int:
        """Batches in one epoch, the last shared with the next."""
        return -(-self.num_samples // self.batch_size)

    def at(self, step: int) -> MultimodalBatch:
        """Returns the batch of `step`, counted from 0 over all epochs."""
        start = step * self.batch_size
        numbers = self._order.take(start, self.batch_size)
        rows: list[tuple[PromptRow, list[int]]] = []
        pictures: list[list[Tensor]] = []
        boxes: list[tuple[float, float, float, float]] = []
        for place, number in enumerate(numbers):
            picture = self._pictures[int(number)]
            shown = shown_frames(picture)
            tasks = self._tasks(picture, 1, start + place)
            made = ask(self._prompts, tasks, self._num_image_tokens(shown.shape), shown.dim() == 4)
            packed = [packed_row(*made)] if self._cfg.is_packed else [(row, []) for row in made[0]]
            rows += packed
            pictures += [[shown]] * len(packed)
            boxes += [_first_box(picture, task) for task in tasks]
        batch = collate(rows, pictures, self._prompts.pad_id)
        return replace(batch, boxes=torch.tensor(boxes))

    def prefetch(self, start_step: int, end_step: int, depth: int = 3) -> Iterator[MultimodalBatch]:
        """Returns the batches of start_step .. end_step - 1 in order, `depth` ahead, made by one thread."""
        return made_ahead(self.at, start_step, end_step, depth)

    def _tasks(self, picture: LabelledPicture, purpose: int, place: int) -> list[Task]:
        rng = np.random.default_rng((self._seed, 5, purpose, place))
        cfg = self._cfg
        return draw_tasks(picture, rng, cfg.tasks_per_picture, cfg.weights, self._names)


def label_pictures(
    rows: Iterable[SceneRow],
    *,
    image_size: int | None = None,
    encode_masks: EncodeMasks | None = None,
    has_clips: bool = False,
) -> list[LabelledPicture]:
    """Returns rows of labelled scenes as training asks about them; wordings held out are left out.

    Words, boxes and codewords are in memory, and pictures that had to be resized.

    Args:
        rows: from `vla.data.scenes`, looked at one after the other.
        image_size: stretch all to squares of so many pixels, for families that read such; None leaves them.
        encode_masks: a mask codec's; None leaves segmentation out.
        has_clips: clips are kept; else left out, most of their questions being about motion.
    """
    labelled = []
    for row in rows:
        if row.kind == "clip" and not has_clips:
            continue
        frames = row.frames
        if image_size is not None and frames.shape[-2:] != (image_size, image_size):
            frames = resize(torch.from_numpy(np.array(frames)), (image_size, image_size)).numpy()
        codes = _codewords(row, encode_masks)
        labelled.append(
            LabelledPicture(
                frames=frames,
                scene_seed=int(row.scene_seed),
                objects=tuple(
                    LabelledObject(
                        name=item.name,
                        box=_box(item.box),
                        phrases=tuple(item.phrases),
                        codewords=code,
                        is_clear=item.is_clear,
                    )
                    for item, code in zip(row.objects, codes, strict=True)
                ),
                captions=tuple(row.captions),
                questions=tuple(
                    (q.kind, q.question, q.answer) for q in row.questions if q.split == "train"
                ),
            )
        )
    return labelled


def shown_frames(picture: LabelledPicture) -> Tensor:
    """Returns what the model is shown: (3, H, W) of a still, (T, 3, H, W) of a clip."""
    frames = torch.from_numpy(
        np.array(picture.frames)
    )  # a copy: those on disk cannot be written to
    return frames[0] if len(frames) == 1 else frames


def ask(
    prompts: AnswerPrompts, tasks: Sequence[Task], num_image_tokens: int, is_clip: bool = False
) -> tuple[list[PromptRow], int]:
    """Returns one training row for each task about a picture, and the length of the head they share."""
    rows = [
        prompts.row(
            task.instruction, task.answer, num_image_tokens=num_image_tokens, is_clip=is_clip
        )
        for task in tasks
    ]
    return rows, prompts.head_length(num_image_tokens, is_clip=is_clip)


def packed_row(rows: Sequence[PromptRow], head_length: int) -> tuple[PromptRow, list[int]]:
    """Returns rows of one head as one, and the document of each of its tokens: -1 for the head, then 0, 1, 2, ..."""
    head = rows[0].ids[:head_length]
    parts: list[tuple[Sequence[int], bool]] = [(head, False)]
    documents = [-1] * head_length
    is_answer = [False] * head_length
    for number, row in enumerate(rows):
        parts.append((row.ids[head_length:], False))
        is_answer += row.is_answer[head_length:]
        documents += [number] * (len(row.ids) - head_length)
    return replace(PromptRow.of(*parts), is_answer=is_answer), documents


def collate(
    rows: Sequence[tuple[PromptRow, list[int]]], pictures: list[list[Tensor]], pad_id: int
) -> MultimodalBatch:
    """Returns rows as one batch, padded on the right; documents are empty lists where rows are not packed."""
    length = max(len(row.ids) for row, _ in rows)
    ids = torch.full((len(rows), length), pad_id)
    valid = torch.zeros(len(rows), length, dtype=torch.bool)
    suffix_mask, documents = valid.clone(), torch.zeros_like(ids)
    for number, (row, of_tokens) in enumerate(rows):
        size = len(row.ids)
        ids[number, :size] = torch.tensor(row.ids)
        valid[number, :size] = True
        suffix_mask[number, :size] = torch.tensor(row.is_answer)
        if of_tokens:
            documents[number, :size] = torch.tensor(of_tokens)
            documents[number, size:] = of_tokens[-1]
    return MultimodalBatch(
        ids=ids,
        valid=valid,
        suffix_mask=suffix_mask,
        pictures=pictures,
        documents=documents if rows[0][1] else None,
    )


def _first_box(picture: LabelledPicture, task: Task) -> tuple[float, float, float, float]:
    return picture.objects[task.objects[0]].box if task.objects else (-1.0, -1.0, -1.0, -1.0)


def _codewords(row: SceneRow, encode_masks: EncodeMasks | None) -> list[tuple[int, ...] | None]:
    """Codewords of every object's mask, from one pass of the codec."""
    if encode_masks is None or not row.objects:
        return [None] * len(row.objects)
    crops = [crop_mask(item.mask, _box(item.box)) for item in row.objects]
    codes = encode_masks(torch.from_numpy(np.stack(crops)))
    return [tuple(code) for code in codes.tolist()]


def _box(box: Sequence[float]) -> tuple[float, float, float, float]:
    y_min, x_min, y_max, x_max = (float(share) for share in box)
    return y_min, x_min, y_max, x_max
