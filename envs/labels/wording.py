"""How captions, questions and referring expressions are worded; some wordings are kept out of training.

Slots in braces are filled in. Held-out wordings ask the same in other words and never occur in training rows.
"""

from __future__ import annotations

from envs.instructions import Phrasings

QUESTIONS: dict[str, Phrasings] = {
    "count": Phrasings(
        train=(
            "how many {things} are there?",
            "how many {things} do you see?",
            "count the {things}",
            "what is the number of {things}?",
        ),
        held_out=("how many {things} are in the picture?", "what number of {things} do you see?"),
    ),
    "color": Phrasings(
        train=(
            "what color is {thing}?",
            "what is the color of {thing}?",
            "name the color of {thing}",
        ),
        held_out=("which color is {thing}?", "{thing} is of what color?"),
    ),
    "shape": Phrasings(
        train=(
            "what shape is {thing}?",
            "what is the shape of {thing}?",
            "name the shape of {thing}",
        ),
        held_out=("which shape is {thing}?", "{thing} is of what shape?"),
    ),
    "exists": Phrasings(
        train=(
            "is there a {name}?",
            "do you see a {name}?",
            "is a {name} visible?",
            "can a {name} be seen?",
        ),
        held_out=("is a {name} in the picture?", "does the picture show a {name}?"),
    ),
    "relation": Phrasings(
        train=(
            "is {thing} {relation} {other}?",
            "{thing} is {relation} {other}, yes or no?",
            "is it true that {thing} is {relation} {other}?",
        ),
        held_out=("can you see {thing} {relation} {other}?", "yes or no, is {thing} {relation} {other}?"),
    ),
    "side": Phrasings(
        train=("what is {relation} {other}?", "which object is {relation} {other}?"),
        held_out=("which object do you see {relation} {other}?", "name the object {relation} {other}"),
    ),
    "extreme": Phrasings(
        train=("which {noun} is {extreme}?", "what is the {extreme} {noun}?"),
        held_out=("name the {extreme} {noun}", "which is the {extreme} {noun}?"),
    ),
    "inside": Phrasings(
        train=("what is in the bowl?", "which object is in the bowl?", "what does the bowl hold?"),
        held_out=("name the object in the bowl", "what do you see in the bowl?"),
    ),
    "on": Phrasings(
        train=("what is on top of {other}?", "which object is on {other}?"),
        held_out=("name the object on top of {other}", "what do you see on {other}?"),
    ),
    "gripper": Phrasings(
        train=(
            "is the gripper holding an object?",
            "does the gripper hold an object?",
            "is there an object in the gripper?",
        ),
        held_out=("do you see an object in the gripper?", "is an object in the gripper?"),
    ),
    "holding": Phrasings(
        train=("what is the gripper holding?", "which object is in the gripper?"),
        held_out=("name the object in the gripper", "what does the gripper hold?"),
    ),
    "drawer": Phrasings(
        train=("is the drawer open?", "is the drawer pulled open?", "do you see an open drawer?"),
        held_out=("is there an open drawer?", "can you see that the drawer is open?"),
    ),
    "detail_dots": Phrasings(
        train=(
            "how many dots are on {thing}?",
            "count the dots on {thing}",
            "what is the number of dots on {thing}?",
        ),
        held_out=("how many dots do you see on {thing}?", "what number of dots is on {thing}?"),
    ),
    "detail_which": Phrasings(
        train=(
            "which object has {dots}?",
            "what object shows {dots}?",
            "on which object do you see {dots}?",
        ),
        held_out=("name the object with {dots}", "which object is the one with {dots}?"),
    ),
    "wide_card": Phrasings(
        train=(
            "is {thing} wider than tall?",
            "is {thing} wider than it is tall?",
            "is the width of {thing} larger than its height?",
        ),
        held_out=("is {thing} more wide than tall?", "does {thing} have a larger width than height?"),
    ),
    "wide_square": Phrasings(
        train=("is {thing} a square?", "are all sides of {thing} equal?"),
        held_out=("does {thing} have equal sides?", "is it true that {thing} is a square?"),
    ),
    "wide_ends": Phrasings(
        train=(
            "do the {one} and the {two} object have the same {quality}?",
            "is the {quality} of the {one} and the {two} object the same?",
            "is the {one} object of the same {quality} as the {two} object?",
        ),
        held_out=(
            "are the {one} and the {two} object of the same {quality}?",
            "yes or no, do the {one} and the {two} object have the same {quality}?",
        ),
    ),
    "motion_direction": Phrasings(
        train=(
            "which way does {thing} move?",
            "where does {thing} move?",
            "in which direction does {thing} move?",
        ),
        held_out=("which way is {thing} going?", "what is the direction of {thing}?"),
    ),
    "motion_which": Phrasings(
        train=("which object moves?", "what moves?", "which object is moving?"),
        held_out=("name the object that moves", "what do you see move?"),
    ),
    "motion_faster": Phrasings(
        train=(
            "which moves faster, {thing} or {other}?",
            "which is faster, {thing} or {other}?",
            "what moves faster, {thing} or {other}?",
        ),
        held_out=("{thing} or {other}, which is faster?", "name the faster of {thing} and {other}"),
    ),
    "motion_moving": Phrasings(
        train=("is {thing} moving?", "does {thing} move?", "is {thing} in motion?"),
        held_out=("do you see {thing} move?", "is it true that {thing} moves?"),
    ),
    "motion_drawer": Phrasings(
        train=("does the drawer open or close?", "is the drawer opening or closing?"),
        held_out=("which way does the drawer move, open or close?",),
    ),
    "motion_gripper": Phrasings(
        train=("does the gripper open or close?", "is the gripper opening or closing?"),
        held_out=("which way do the fingers move, open or close?",),
    ),
}  # fmt: skip

# The kind stored with a question; what is not named here is a kind of its own.
KINDS = {
    "side": "relation",
    "holding": "gripper",
    **{name: "detail" for name in QUESTIONS if name.startswith("detail_")},
    **{name: "wide" for name in QUESTIONS if name.startswith("wide_")},
    **{name: "motion" for name in QUESTIONS if name.startswith("motion_")},
}

RELATION_WORDS: dict[str, Phrasings] = {
    "left": Phrasings(train=("left of", "to the left of"), held_out=("on the left side of",)),
    "right": Phrasings(train=("right of", "to the right of"), held_out=("on the right side of",)),
    "front": Phrasings(train=("in front of",), held_out=("nearer to the camera than",)),
    "behind": Phrasings(train=("behind",), held_out=("farther from the camera than",)),
}
EXTREME_WORDS: dict[str, Phrasings] = {
    "left": Phrasings(train=("leftmost",), held_out=("farthest left",)),
    "right": Phrasings(train=("rightmost",), held_out=("farthest right",)),
    "front": Phrasings(train=("nearest",), held_out=("closest",)),
    "behind": Phrasings(train=("farthest",), held_out=("most distant",)),
}
SUPPORT_WORDS: dict[str, Phrasings] = {
    "bowl": Phrasings(train=("in the bowl", "inside the bowl"), held_out=("within the bowl",)),
    "gripper": Phrasings(
        train=("in the gripper", "held by the gripper"), held_out=("that the gripper holds",)
    ),
    "object": Phrasings(
        train=("on the {other}", "on top of the {other}"),
        held_out=("that stands on the {other}",),
    ),
}
NOUNS = {"object": Phrasings(train=("object", "thing"), held_out=("object", "thing"))}
MOTION_WORDS = {"left": "left", "right": "right", "front": "towards the camera", "behind": "away"}
