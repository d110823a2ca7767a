"""Cutting the grid into blocks: nothing is lost, and inside a block space comes first, then time."""

import pytest
import torch

from lssvwm_agents.worldmodel.blocks import from_blocks, num_blocks, to_blocks


@pytest.mark.parametrize(
    ("grid", "block"), [((4, 4), 4), ((4, 4), 2), ((4, 4), 1), ((2, 6), 2), ((6, 4), 2), ((3, 6), 3)]
)
def test_roundtrip(grid, block):
    tokens = torch.randn(2, 5, *grid, 3)
    sequences = to_blocks(tokens, block)
    assert sequences.shape == (2 * num_blocks(block, grid), 5 * block**2, 3)
    assert torch.equal(from_blocks(sequences, block, grid), tokens)


def test_order_is_space_first_then_time():
    batch, time, grid, block = 2, 3, (2, 4), 2
    tokens = torch.zeros(batch, time, *grid, 4)
    for b in range(batch):
        for t in range(time):
            for row in range(grid[0]):
                for column in range(grid[1]):
                    tokens[b, t, row, column] = torch.tensor([b, t, row, column])
    sequences = to_blocks(tokens, block)
    right_block_of_second_video = sequences[1 * 2 + 1].tolist()
    expected = [[1, t, row, column] for t in range(time) for row in (0, 1) for column in (2, 3)]
    assert right_block_of_second_video == expected
