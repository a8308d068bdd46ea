import torch

from vla.models.sequence import insert_after_bos


def test_image_tokens_stand_between_the_first_text_token_and_the_rest():
    text = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    valid = torch.tensor([[True, True, False]])
    images, last = torch.tensor([7.0, 8.0]).view(1, 2, 1), torch.tensor([[[9.0]]])
    prefix, prefix_valid = insert_after_bos(text, valid, images, last)
    assert prefix.flatten().tolist() == [1, 7, 8, 2, 3, 9]
    assert prefix_valid.tolist() == [[True, True, True, True, False, True]]


def test_without_a_last_token_the_prefix_ends_with_the_text():
    text, valid = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    prefix, prefix_valid = insert_after_bos(text, valid, torch.zeros(2, 5, 4))
    assert prefix.shape == (2, 8, 4)
    assert prefix_valid.shape == (2, 8)
