"""What is said to the arm: several ways to ask for each task, some of them kept out of training.

Held-out sentences recombine words of the training sentences. The few words that no training sentence of any task
uses are listed in `NEW_WORDS`, so that a test of paraphrases can tell new order from new vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

SPLITS = ("train", "held_out")


@dataclass(frozen=True, kw_only=True)
class Phrasings:
    """Sentences with {object} and, for some tasks, {reference} to be filled in."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, split: str) -> tuple[str, ...]:
        return self.train if split == "train" else self.held_out


PHRASINGS: dict[str, Phrasings] = {
    "reach": Phrasings(
        train=(
            "reach for the {object}",
            "move above the {object}",
            "go to the {object}",
            "hold the hand over the {object}",
            "point at the {object}",
            "reach the {object}",
            "move over to the {object}",
            "move the hand above the {object}",
            "bring the hand over the {object}",
            "bring the hand to the {object}",
            "go above the {object}",
            "stop over the {object}",
        ),
        held_out=("move the hand to the {object}", "hover over the {object}"),
    ),
    "pick_cube": Phrasings(
        train=(
            "pick up the {object}",
            "grasp the {object}",
            "lift the {object} off the table",
            "take the {object}",
            "grab the {object} and lift it",
            "raise the {object}",
            "pick the {object} up",
            "lift the {object}",
            "grab the {object}",
            "grasp and lift the {object}",
            "grasp the {object} and raise it",
            "get the {object} off the table",
            "pick the {object} off the table",
            "take hold of the {object} and lift it up",
        ),
        held_out=("lift up the {object}", "take the {object} off the table", "fetch the {object}"),
    ),
    "place_in_bowl": Phrasings(
        train=(
            "put the {object} in the bowl",
            "place the {object} into the bowl",
            "drop the {object} in the bowl",
            "move the {object} into the bowl",
            "pick up the {object} and put it in the bowl",
            "put the {object} into the bowl",
            "place the {object} in the bowl",
            "drop the {object} into the bowl",
            "set the {object} down in the bowl",
            "get the {object} into the bowl",
            "grab the {object} and drop it in the bowl",
            "lift the {object} and place it into the bowl",
            "pick up the {object} and move it into the bowl",
            "the {object} belongs in the bowl",
        ),
        held_out=("take the {object} and place it in the bowl", "the {object} goes into the bowl"),
    ),
    "push": Phrasings(
        train=(
            "push the {object} into the square",
            "slide the {object} to the square",
            "move the {object} onto the marked square",
            "push the {object} to the marked area",
            "push the {object} onto the square",
            "slide the {object} into the square",
            "slide the {object} onto the marked square",
            "move the {object} to the square",
            "move the {object} into the marked area",
            "push the {object} over the table to the square",
            "get the {object} into the marked area",
            "the {object} belongs in the square",
        ),
        held_out=("slide the {object} onto the marked area", "shove the {object} into the square"),
    ),
    "stack": Phrasings(
        train=(
            "stack the {object} on the {reference}",
            "put the {object} on top of the {reference}",
            "place the {object} onto the {reference}",
            "pick up the {object} and stack it on the {reference}",
            "put the {object} on the {reference}",
            "stack the {object} on top of the {reference}",
            "place the {object} on the {reference}",
            "set the {object} onto the {reference}",
            "move the {object} on top of the {reference}",
            "lift the {object} onto the {reference}",
            "grab the {object} and put it on the {reference}",
            "pick up the {object} and place it on top of the {reference}",
            "take the {object} and set it on the {reference}",
            "the {object} belongs on top of the {reference}",
        ),
        held_out=(
            "place the {object} on top of the {reference}",
            "build a tower with the {object} on the {reference}",
        ),
    ),
    "open_drawer": Phrasings(
        train=(
            "open the drawer",
            "pull the drawer open",
            "pull the handle of the drawer",
            "slide the drawer open",
            "open up the drawer",
            "pull out the drawer",
            "pull at the handle",
            "slide out the drawer",
            "take the handle and pull",
            "grab the handle and open the drawer",
            "get the drawer open",
            "open the drawer by the handle",
        ),
        held_out=("pull open the drawer", "open up the cabinet"),
    ),
}

NEW_WORDS = frozenset({"hover", "fetch", "goes", "shove", "build", "a", "tower", "with", "cabinet"})
MAX_INSTRUCTION_LENGTH = 160
