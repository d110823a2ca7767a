"""The dream's rules: a real maze is looked at, then every move is imagined, and a real twin takes it too.

A moment is a frozen dataclass that nobody changes, so that keeping one is a fork. Everything here has a batch
of one. Positions are in the maze's own cells, x to the right and y up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import torch

from lssvwm_agents.agents import environment_kwargs
from lssvwm_agents.envs import (
    POLICY_NAMES,
    MazeConfig,
    MazeContexts,
    MazeState,
    odometry,
    render,
    reset,
    step,
)
from lssvwm_agents.envs.maze_config import HEADING_UNITS
from lssvwm_agents.envs.raycast_maze import heading_vectors
from lssvwm_agents.envs.top_down import render_top_down
from lssvwm_agents.envs.wall_places import visible_places
from lssvwm_agents.errors import UserError
from lssvwm_agents.metrics import psnr
from lssvwm_agents.worldmodel import WorldModel, WorldState

MOVES = ("wait", "forward", "left", "right", "forward-left", "forward-right")
"""What a person can do, in the order of RaycastMaze's discrete actions."""

_SPEED_AND_TURN = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (1.0, 1.0), (1.0, -1.0))
_POSE = 4
_FAR_AWAY = 1000.0
_MAP_PIXELS = 480


@dataclass(frozen=True)
class Moment:
    """One moment of a walk.

    Attributes:
        world: What the world model remembers.
        frame: (S, S, 3) uint8, shown.
        proprio: (P,) odometry as the model has it.
        real: The real maze after the very same moves.
        index: Frames since the episode's first, which has index 0.
        reward: Imagined, of this frame.
        found: Imagined rewards since the dream began.
    """

    world: WorldState
    frame: np.ndarray
    proprio: np.ndarray
    real: MazeState
    index: int
    reward: float
    found: float


@dataclass(frozen=True)
class LookAround:
    """The real frames that a dream begins with.

    Attributes:
        frames: (T, S, S, 3) uint8.
        proprio: (T, P) odometry.
        places: (T, columns) int64 pieces of wall that each frame shows.
        typical: PSNR in dB of two views of this maze that have nothing to do with each other.
        ceiling: PSNR in dB of the frames as the tokenizer alone keeps them.
    """

    frames: np.ndarray
    proprio: np.ndarray
    places: np.ndarray
    typical: float
    ceiling: float


def inside(frames: torch.Tensor) -> torch.Tensor:
    """Frames (..., S, S, 3) uint8 -> (..., 3, s, s) in [0, 1] without the border that shows the target."""
    edge = max(1, round(frames.shape[-2] * 3 / 64))
    return frames[..., edge:-edge, edge:-edge, :].movedim(-1, -3).float() / 255


class Dream:
    """The rules of walks in what one world model imagines; all walks share it, and it holds nothing of any.

    Args:
        model: A world model of RaycastMaze, with the odometry of its pose.
        context_frames: Real frames that a dream begins with.
        num_denoising_steps: Of every imagined frame.
        guide: The scripted policy that walks while the model watches.

    Raises:
        UserError: If the model was trained for another kind of environment, or a number is out of range.
    """

    def __init__(
        self,
        model: WorldModel,
        context_frames: int = 256,
        num_denoising_steps: int = 1,
        guide: str = "wanderer",
    ) -> None:
        for name, value, least in (
            ("context_frames", context_frames, 2),
            ("num_denoising_steps", num_denoising_steps, 1),
        ):
            if value < least:
                raise UserError(f"`{name}` must be at least {least}, got {value}.")
        self.model = model.eval()
        self.context_frames, self.num_denoising_steps = context_frames, num_denoising_steps
        self.maze = _maze_of(model)
        if guide not in POLICY_NAMES:
            raise UserError(f"`guide` must be one of {', '.join(POLICY_NAMES)}, got {guide!r}.")
        self.guide = guide

    # --- moments ----------------------------------------------------------------------------------

    @torch.no_grad()
    def begin(self, seed: int) -> tuple[LookAround, Moment]:
        """Let the guide walk through the maze of that seed, and the model watch."""
        source = MazeContexts(self.maze, self.guide, self.context_frames)
        context = source.draw(torch.tensor([seed]))
        states = self._replay(seed, context.actions[0])
        model, device = self.model, self.model.device
        frames = context.frames.to(device).movedim(-1, 2).float() / 255
        latents = model.tokenizer.encode(frames)
        proprio = context.proprio
        assert proprio is not None  # mazes have it
        world, _ = model.observe_latents(
            model.initial_state(1),
            latents,
            context.actions.to(device),
            proprio.to(device),
            context.action_known.to(device).float(),
        )
        kept = self._pixels(latents[0])
        shown = context.frames[0]
        apart = shown.roll(len(shown) // 2, 0)
        look = LookAround(
            frames=shown.numpy(),
            proprio=proprio[0].numpy(),
            places=torch.cat([visible_places(self.maze, state) for state in states]).numpy(),
            typical=float(psnr(inside(shown), inside(apart)).mean()),
            ceiling=float(psnr(inside(shown), inside(kept)).mean()),
        )
        return look, Moment(world, kept[-1].numpy(), look.proprio[-1], states[-1], len(shown) - 1, 0.0, 0.0)

    @torch.no_grad()
    def step(self, moment: Moment, move: int) -> Moment:
        """Imagine the frame that a move leads to; the real twin makes it as well.

        Raises:
            ValueError: If there is no such move.
        """
        if not 0 <= move < len(MOVES):
            raise ValueError(f"`move` must be in [0, {len(MOVES)}), got {move}.")
        return self.step_float(moment, self.float_action(move))

    @torch.no_grad()
    def step_float(self, moment: Moment, action: torch.Tensor) -> Moment:
        """As :meth:`step`, for a float action (A,) of the model: one-hot for discrete ones."""
        action = action[None].to(self.model.device)
        noise = torch.Generator().manual_seed(moment.index)  # the same future, whenever it is walked again
        world, predicted = self.model.step(
            moment.world, action, self.num_denoising_steps, None if self.num_denoising_steps == 1 else noise
        )
        taken = action.cpu() if self.maze.continuous else action.argmax(1).cpu()
        real, _, _ = step(self.maze, moment.real, taken)
        reward = float(predicted.reward)
        assert predicted.proprio is not None
        return Moment(
            world=world,
            frame=self._pixels(predicted.latent)[0].numpy(),
            proprio=predicted.proprio[0].float().cpu().numpy(),
            real=real,
            index=moment.index + 1,
            reward=reward,
            found=moment.found + reward,
        )

    def float_action(self, move: int) -> torch.Tensor:
        """A move as the model's float action (A,)."""
        if self.maze.continuous:
            return torch.tensor(_SPEED_AND_TURN[move])
        return torch.nn.functional.one_hot(torch.tensor(move), len(MOVES)).float()

    # --- looking ----------------------------------------------------------------------------------

    def real_frame(self, state: MazeState) -> np.ndarray:
        """(S, S, 3) uint8: what the real maze shows."""
        return render(self.maze, state)[0].numpy()

    def pose(self, moment: Moment) -> tuple[float, float, float]:
        """Where the dreamer is by the model's odometry: x, y in cells, heading in radians."""
        return self.maze_poses(moment.real, moment.proprio[None])[0]

    def real_pose(self, state: MazeState) -> tuple[float, float, float]:
        """Where the real twin is."""
        return self.maze_poses(state, odometry(self.maze, state).numpy())[0]

    def maze_poses(self, state: MazeState, proprio: np.ndarray) -> list[tuple[float, float, float]]:
        """Odometry (T, P) as poses in the maze: x, y in cells, heading in radians, counter-clockwise."""
        start = state.start_position[0].numpy()
        forward = heading_vectors(state.start_heading)[0].numpy()
        left = np.array([-forward[1], forward[0]])
        points = start + proprio[:, :1] * forward + proprio[:, 1:2] * left
        headings = np.arctan2(forward[1], forward[0]) + np.arctan2(proprio[:, 2], proprio[:, 3])
        return [(float(x), float(y), float(h)) for (x, y), h in zip(points, headings, strict=True)]

    def odometry_of(self, state: MazeState, x: float, y: float) -> tuple[float, float]:
        """A point of the maze as odometry: cells ahead of the start, cells to its left."""
        moved = np.array([x, y]) - state.start_position[0].numpy()
        forward = heading_vectors(state.start_heading)[0].numpy()
        return float(moved @ forward), float(moved @ np.array([-forward[1], forward[0]]))

    def real_at(self, moment: Moment) -> MazeState | None:
        """The real maze seen from where the dreamer believes to be; None where there is a wall."""
        x, y, heading = self.pose(moment)
        walls = moment.real.walls[0]
        if not (0 <= x < walls.shape[1] and 0 <= y < walls.shape[0]) or bool(walls[int(y), int(x)]):
            return None
        units = round(np.degrees(heading) * HEADING_UNITS / 360) % HEADING_UNITS
        return replace(moment.real, position=torch.tensor([[x, y]]), heading=torch.tensor([units]))

    def map_picture(self, state: MazeState) -> np.ndarray:
        """(480, 480, 3) uint8: walls and targets from above, without the agent."""
        nobody = replace(state, position=state.position - _FAR_AWAY)
        return render_top_down(self.maze, nobody, _MAP_PIXELS)[0].numpy()

    # --- inside -----------------------------------------------------------------------------------

    def _replay(self, seed: int, actions: torch.Tensor) -> list[MazeState]:
        """The maze's states under the moves (T, A) of a context; the first led to no frame."""
        states = [reset(self.maze, [seed])]
        for action in actions[1:]:
            taken = action[None] if self.maze.continuous else action.argmax()[None]
            states.append(step(self.maze, states[-1], taken)[0])
        return states

    def _pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (N, C, h, w) -> frames (N, S, S, 3) uint8 on the CPU."""
        decoded = self.model.decode(latents).clamp(0, 1) * 255
        return decoded.round().to(torch.uint8).movedim(1, -1).cpu().contiguous()


def _maze_of(model: WorldModel) -> MazeConfig:
    """The mazes that a model was trained for.

    Raises:
        UserError: If it was trained for something else, or has no odometry of the pose.
    """
    config = model.config
    if config.odometry != "pose" or config.proprio_dim < _POSE:
        raise UserError(
            "the play page shows where a dreamer is, which needs a model with the odometry of its pose: this "
            f"one has `odometry`={config.odometry!r} with {config.proprio_dim} values."
        )
    maze: MazeConfig | None = None
    if config.env_id in gymnasium.registry:
        with gymnasium.make(config.env_id, **environment_kwargs(config)) as env:
            maze = getattr(env.unwrapped, "maze_config", None)
    if maze is None or maze.task != "collect":
        raise UserError(
            "the play page walks in RaycastMaze, such as lssvwm/RaycastMaze-7x7-v0, but this model was "
            f"trained for `{config.env_id or 'no registered environment'}`: look at it with `lssvwm plan`."
        )
    return maze
