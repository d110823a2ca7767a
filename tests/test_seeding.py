import torch

from lssvwm_agents.seeding import fold_in, generator


def test_fold_in_is_the_same_on_every_machine() -> None:
    assert [fold_in(0), fold_in(0, 0), fold_in(7, 1, 2)] == [
        8147104208329303767,
        5984496987195247115,
        8659331336295828927,
    ]


def test_no_two_seeds_meet() -> None:
    many = [fold_in(seed, counter) for seed in range(-50, 50) for counter in range(-50, 50)]
    many += [fold_in(seed, one, 5) for seed in range(50) for one in range(50)] + [
        fold_in(s) for s in range(1000)
    ]
    assert len(set(many)) == len(many)
    assert all(0 <= value < 2**63 for value in many)
    assert fold_in(1, 2, 3) != fold_in(1, 3, 2)


def test_bits_are_balanced() -> None:
    values = torch.tensor([fold_in(3, counter) for counter in range(4000)])
    bits = (values[:, None] >> torch.arange(63)) & 1
    assert (bits.double().mean(0) - 0.5).abs().max() < 0.05


def test_generator() -> None:
    one, same, other = (torch.rand(3, generator=generator("cpu", 1, c)) for c in (2, 2, 3))
    assert torch.equal(one, same) and not torch.equal(one, other)
