import gymnasium
import numpy as np
import pytest
import torch

from lssvwm_agents.agents import ActionCodec, action_spec_from_space
from lssvwm_agents.planners import ContinuousActions, DiscreteActions


def test_specs_of_spaces() -> None:
    assert action_spec_from_space(gymnasium.spaces.Discrete(6)) == DiscreteActions(6)
    box = gymnasium.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0.5], np.float32))
    assert action_spec_from_space(box) == ContinuousActions(low=(-1, 0), high=(1, 0.5))


@pytest.mark.parametrize(
    "space", [gymnasium.spaces.MultiDiscrete([2, 3]), gymnasium.spaces.Box(-np.inf, np.inf, (2,))]
)
def test_other_spaces_are_refused(space: gymnasium.Space) -> None:
    with pytest.raises(ValueError, match="planning needs"):
        action_spec_from_space(space)


def test_discrete_round_trip_honours_the_start_of_the_space() -> None:
    codec = ActionCodec(gymnasium.spaces.Discrete(3, start=5))
    floats = codec.encode(np.array([5, 7]))
    assert floats.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert codec.decode(floats).tolist() == [5, 7]
    assert codec.decode(torch.tensor([[0.2, 0.5, 0.3]])).tolist() == [6]
    assert codec.null(2).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_box_round_trip_clips_and_keeps_the_shape() -> None:
    codec = ActionCodec(gymnasium.spaces.Box(-1.0, 1.0, (2, 2)))
    action = np.array([[[0.5, -0.5], [1.0, 0.0]]], np.float32)
    assert codec.encode(action).shape == (1, 4)
    assert codec.decode(codec.encode(action)).numpy().tolist() == action.tolist()
    assert codec.decode(torch.full((1, 4), 3.0)).max() == 1.0


def test_wrong_shapes_and_values_are_refused() -> None:
    discrete, box = (
        ActionCodec(gymnasium.spaces.Discrete(3)),
        ActionCodec(gymnasium.spaces.Box(-1.0, 1.0, (2,))),
    )
    with pytest.raises(ValueError, match="integers of shape"):
        discrete.encode(np.array([[0.0, 1.0, 0.0]]))
    with pytest.raises(ValueError, match="must lie in"):
        discrete.encode(np.array([3]))
    with pytest.raises(ValueError, match="must have shape"):
        box.encode(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="must have shape"):
        discrete.decode(torch.zeros(1, 4))
