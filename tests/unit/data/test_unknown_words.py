import numpy as np
import pytest

from vla.data.unknown_words import variants, with_unknown_words
from vla.errors import ConfigError

TEXT = "put the red cube into the bowl"


def test_about_the_wished_share_of_the_words_is_made_up_and_the_others_stay_in_place():
    rng = np.random.default_rng(0)
    made = [with_unknown_words(TEXT, 0.25, ["go"], rng).split() for _ in range(500)]
    assert all(len(words) == len(TEXT.split()) for words in made)
    kept = np.array([[a == b for a, b in zip(words, TEXT.split(), strict=True)] for words in made])
    assert 0.70 < kept.mean() < 0.80
    assert np.all(kept.mean(axis=0) > 0.6)  # no word is spared, none is always hit
    assert np.all(kept.mean(axis=0) < 0.9)


def test_equal_seeds_give_equal_variants():
    made = variants([TEXT], 0.5, 8, lambda text: True, seed=3)
    assert made == variants([TEXT], 0.5, 8, lambda text: True, seed=3)
    assert made != variants([TEXT], 0.5, 8, lambda text: True, seed=4)
    assert len(set(made[0])) > 4


def test_a_variant_that_the_model_cannot_read_becomes_the_text_itself():
    assert variants([TEXT], 0.5, 4, lambda text: text == TEXT, seed=0) == [[TEXT] * 4]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ConfigError, match="unknown_words is"):
        variants([TEXT], share, 1, lambda text: True, seed=0)


def test_some_made_up_words_contain_a_known_one_and_some_do_not():
    rng = np.random.default_rng(0)
    made = with_unknown_words("x " * 400, 0.999, ["quickly"], rng).split()
    containing = [word for word in made if "quickly" in word]
    assert 0.4 < len(containing) / len(made) < 0.6
    assert "quickly" not in made
