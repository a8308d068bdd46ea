import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import ConfigError
from vla.nn.positions import (
    PictureStart,
    grid_positions,
    last_valid,
    mrope_positions,
    positions_from_valid,
)

VALID = torch.tensor([[True, True, False, False, True], [True, True, True, True, True]])


def _positions(kinds: list[str], grids: list[list[int]], start=PictureStart.NEXT) -> torch.Tensor:
    """Each row a string: w a word, x a token of a picture or clip, - padding."""
    is_picture = torch.tensor([[kind == "x" for kind in row] for row in kinds])
    valid = torch.tensor([[kind != "-" for kind in row] for row in kinds])
    return mrope_positions(
        is_picture, torch.tensor(grids, dtype=torch.int64).view(-1, 3), valid, start
    )


def _written(row: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
    time, rows, columns = row.unbind(dim=-1)
    return time.tolist(), rows.tolist(), columns.tolist()


def test_padding_takes_no_position():
    assert positions_from_valid(VALID).tolist() == [[0, 1, 1, 1, 2], [0, 1, 2, 3, 4]]


def test_padding_at_the_start_of_a_row_stays_at_zero():
    valid = torch.tensor([[False, False, True, True]])
    assert positions_from_valid(valid).tolist() == [[0, 0, 0, 1]]


def test_the_last_valid_token_is_found_in_front_of_the_padding():
    x = torch.arange(10.0).view(2, 5, 1)
    valid = torch.tensor([[True, True, False, False, False], [True, True, True, True, True]])
    assert last_valid(x, valid).flatten().tolist() == [1.0, 9.0]


def test_a_grid_is_counted_row_after_row():
    assert grid_positions(2, 3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_a_raster_index_puts_neighbours_far_apart_and_strangers_close_and_a_grid_does_not():
    """Why pictures need a position with two axes: 4 rows of 7 patches, counted as if they were words."""
    width = 7
    grid = grid_positions(4, width).tolist()
    raster = {(row, column): index for index, (row, column) in enumerate(grid)}
    end_of_a_row, start_of_the_next = (2, width - 1), (3, 0)
    above, below = (2, 0), (3, 0)
    assert raster[start_of_the_next] - raster[end_of_a_row] == 1  # opposite edges, yet adjacent
    assert raster[below] - raster[above] == width  # touching, yet a whole row away
    displacements = {
        pair: tuple(b - a for a, b in zip(*pair, strict=True))
        for pair in [(end_of_a_row, start_of_the_next), (above, below)]
    }
    assert displacements[end_of_a_row, start_of_the_next] == (1, -(width - 1))
    assert displacements[above, below] == (1, 0)


def test_words_have_one_position_on_all_three_axes():
    assert _written(_positions(["wwww"], [])[0]) == ([0, 1, 2, 3],) * 3


def test_a_picture_starts_at_the_next_free_position_and_words_go_on_after_its_longest_side():
    time, rows, columns = _written(_positions(["wwxxxxxxww"], [[1, 2, 3]])[0])
    assert time == [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]
    assert rows == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]
    assert columns == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]


def test_time_goes_on_within_a_clip_and_words_go_on_after_the_largest_of_the_three():
    """The table of 4.57.6: six steps of 2 x 2 tokens from position 2 on take 2..7, and the text goes on at 8."""
    time, rows, columns = _written(_positions(["ww" + "x" * 24 + "w"], [[6, 2, 2]])[0])
    assert time == [0, 1, *(t for t in range(2, 8) for _ in range(4)), 8]
    assert rows == [0, 1, *[2, 2, 3, 3] * 6, 8]
    assert columns == [0, 1, *[2, 3, 2, 3] * 6, 8]


def test_pictures_and_clips_follow_each_other_with_words_between_them_or_without():
    grids = [[1, 1, 2], [2, 1, 1], [1, 2, 1]]
    time, rows, columns = _written(_positions(["xxwxxxxw"], grids)[0])
    assert time == [0, 0, 2, 3, 4, 5, 5, 7]
    assert rows == [0, 0, 2, 3, 3, 5, 6, 7]
    assert columns == [0, 1, 2, 3, 3, 5, 5, 7]


@pytest.mark.parametrize("start", PictureStart)
def test_padding_left_right_or_in_between_leaves_the_positions_of_the_others_alone(start):
    alone = _positions(["wxxxxww"], [[1, 2, 2]], start)[0].tolist()
    rows = ["--wxxxxww", "wxxxxww--", "w-xxx-xww"]
    padded = _positions(rows, [[1, 2, 2]] * 3, start)
    for row, positions in zip(rows, padded, strict=True):
        kept = [p.tolist() for kind, p in zip(row, positions, strict=True) if kind != "-"]
        assert kept == alone
        assert all(
            not p.any() for kind, p in zip(row, positions, strict=True) if kind == "-"
        )  # nobody reads them


def test_a_still_picture_of_the_textbook_form_has_time_zero_and_its_own_rows_and_columns():
    time, rows, columns = _written(_positions(["wwxxxxxxww"], [[1, 2, 3]], PictureStart.ZERO)[0])
    assert time == [0, 1, 0, 0, 0, 0, 0, 0, 3, 4]
    assert rows == [0, 1, 0, 0, 0, 1, 1, 1, 3, 4]
    assert columns == [0, 1, 0, 1, 2, 0, 1, 2, 3, 4]


def test_words_after_few_words_and_a_picture_of_the_textbook_form_go_on_after_the_larger():
    positions = _positions(["wwwxxwxxxxxw"], [[1, 1, 2], [1, 1, 5]], PictureStart.ZERO)[0]
    assert positions[:, 2].tolist() == [0, 1, 2, 0, 1, 3, 0, 1, 2, 3, 4, 5]
    clip = _positions(["xxxxxxw"], [[6, 1, 1]], PictureStart.ZERO)[0]
    assert clip[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_places_for_pictures_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="have 4 tokens, the prompts keep 5 places"):
        _positions(["wxxxxxw"], [[1, 2, 2]])


@pytest.mark.parametrize("rows", [["wxxwxxw"], ["wwwxxx-", "-xwwww-"]])
def test_a_picture_with_something_between_its_tokens_is_refused(rows):
    with pytest.raises(ConfigError, match=r"places of picture 0 \(1 x 2 x 2 tokens\) are broken"):
        _positions(rows, [[1, 2, 2]])


def _one_after_another(
    items: list[tuple[int, int, int] | None], start: PictureStart
) -> list[list[int]]:
    """The rule, one item at a time: None is a word, a triple the grid of a picture or clip."""
    positions: list[list[int]] = []
    for item in items:
        free = max((max(p) for p in positions), default=-1) + 1
        if item is None:
            positions.append([free] * 3)
            continue
        first = free if start is PictureStart.NEXT else 0
        steps, rows, columns = item
        positions += [
            [first + t, first + r, first + c]
            for t in range(steps)
            for r in range(rows)
            for c in range(columns)
        ]
    return positions


_SIDE = st.integers(1, 4)
_ROW = st.lists(st.none() | st.tuples(_SIDE, _SIDE, _SIDE), min_size=1, max_size=6)


@given(rows=st.lists(_ROW, min_size=1, max_size=3), data=st.data())
def test_all_rows_at_once_equal_one_token_after_another(rows, data):
    start = data.draw(st.sampled_from(PictureStart))
    expected = [_one_after_another(row, start) for row in rows]
    length = max(map(len, expected)) + 2
    kinds, left = [], []
    for row, positions in zip(rows, expected, strict=True):
        kind = "".join("w" if item is None else "x" * (item[0] * item[1] * item[2]) for item in row)
        left.append(data.draw(st.integers(0, length - len(positions))))
        kinds.append(("-" * left[-1] + kind).ljust(length, "-"))
    grids = [list(item) for row in rows for item in row if item is not None]
    found = _positions(kinds, grids, start)
    for row, first, positions in zip(found, left, expected, strict=True):
        assert row[first : first + len(positions)].tolist() == positions
