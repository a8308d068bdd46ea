import torch

from vla.nn.positions import last_valid, positions_from_valid

VALID = torch.tensor([[True, True, False, False, True], [True, True, True, True, True]])


def test_padding_takes_no_position():
    assert positions_from_valid(VALID).tolist() == [[0, 1, 1, 1, 2], [0, 1, 2, 3, 4]]


def test_padding_at_the_start_of_a_row_stays_at_zero():
    valid = torch.tensor([[False, False, True, True]])
    assert positions_from_valid(valid).tolist() == [[0, 0, 0, 1]]


def test_the_last_valid_token_is_found_in_front_of_the_padding():
    x = torch.arange(10.0).view(2, 5, 1)
    valid = torch.tensor([[True, True, False, False, False], [True, True, True, True, True]])
    assert last_valid(x, valid).flatten().tolist() == [1.0, 9.0]
