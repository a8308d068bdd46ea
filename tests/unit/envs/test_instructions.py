import pytest

from envs.instructions import MAX_INSTRUCTION_LENGTH, NEW_WORDS, PHRASINGS
from envs.tasks import TASKS


def words_of(sentences) -> set[str]:
    return {word for sentence in sentences for word in sentence.split() if not word.startswith("{")}


def test_every_task_has_several_sentences_and_some_kept_out_of_training():
    assert set(PHRASINGS) == set(TASKS) - {"tabletop"}
    for phrasings in PHRASINGS.values():
        assert len(phrasings.train) >= 4
        assert len(phrasings.held_out) >= 2
        assert not set(phrasings.train) & set(phrasings.held_out)


def test_the_new_words_of_held_out_sentences_are_exactly_those_listed():
    train = words_of(sentence for phrasings in PHRASINGS.values() for sentence in phrasings.train)
    held_out = words_of(s for phrasings in PHRASINGS.values() for s in phrasings.held_out)
    assert held_out - train == NEW_WORDS


@pytest.mark.parametrize("task", sorted(PHRASINGS))
def test_every_sentence_names_what_it_is_about(task):
    for sentence in PHRASINGS[task].train + PHRASINGS[task].held_out:
        assert ("{object}" in sentence) == (task != "open_drawer")
        assert ("{reference}" in sentence) == (task == "stack")
        filled = sentence.format(object="yellow cylinder", reference="yellow cylinder")
        assert len(filled) <= MAX_INSTRUCTION_LENGTH
