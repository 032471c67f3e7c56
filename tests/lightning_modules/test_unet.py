"""Encoder and decoder: sizes of every scale, what reaches what, and the head that starts silent."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.finegrained.unet import Decoder, Encoder, quiet_head

WIDTHS = (4, 6, 8)


@pytest.mark.parametrize("size", [(16, 16), (13, 10), (7, 9)])
def test_sizes_halve_rounding_up_and_come_back(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features = Encoder([3, 0, 0], WIDTHS)([torch.rand(2, 3, *size)])
    halves = (-(-size[0] // 2), -(-size[1] // 2))
    quarters = (-(-halves[0] // 2), -(-halves[1] // 2))
    assert [f.shape[1:] for f in features] == [(4, *size), (6, *halves), (8, *quarters)]
    result = Decoder(WIDTHS, WIDTHS)(features)
    assert result.shape == (2, 4, *size)


def test_what_joins_further_down_is_heard() -> None:
    torch.manual_seed(0)
    encoder = Encoder([3, 0, 5], WIDTHS)
    picture, late = torch.rand(1, 3, 8, 8), torch.rand(1, 5, 2, 2)
    here, there = encoder([picture, late]), encoder([picture, late + 1])
    assert torch.equal(here[1], there[1]) and not torch.equal(here[2], there[2])


def test_what_joins_the_decoder_is_heard() -> None:
    torch.manual_seed(0)
    decoder = Decoder([9, 6, 8], WIDTHS)
    features = [torch.rand(1, 9, 9, 7), torch.rand(1, 6, 5, 4), torch.rand(1, 8, 3, 2)]
    result = decoder(features)
    assert result.shape == (1, 4, 9, 7)
    for scale in range(3):
        changed = [level + (index == scale) for index, level in enumerate(features)]
        assert not torch.allclose(decoder(changed), result)


def test_a_detail_far_away_changes_nothing() -> None:
    """Convolutions see no further than their receptive field: a place is told by its surroundings."""
    torch.manual_seed(0)
    encoder, decoder = Encoder([1, 0], (4, 4)), Decoder((4, 4), (4, 4))
    picture = torch.rand(1, 1, 64, 64)
    changed = picture.clone()
    changed[..., -4:, -4:] += 1
    first, second = (decoder(encoder([image])) for image in (picture, changed))
    assert torch.equal(first[..., :32, :32], second[..., :32, :32])
    assert not torch.equal(first[..., -4:, -4:], second[..., -4:, -4:])


def test_a_quiet_head_answers_zero_and_learns() -> None:
    head = quiet_head(4, 2)
    answer = head(torch.rand(1, 4, 3, 3))
    assert torch.equal(answer, torch.zeros(1, 2, 3, 3))
    answer.sum().backward()
    assert head.weight.grad is not None and head.weight.grad.abs().min() > 0
