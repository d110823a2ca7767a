"""One person's walk: the moment they are in, the moments they kept, and the paths that led there."""

from __future__ import annotations

from dataclasses import dataclass, field

from lssvwm_agents.errors import UserError
from lssvwm_agents.planners import Plan
from lssvwm_agents.serve.dream import Dream, LookAround, Moment
from lssvwm_agents.serve.memory_meter import MemoryMeter, Recall

MAX_FORKS = 9
"""Moments that a walk keeps."""

MAX_STEPS = 20_000
"""Imagined frames of a walk; its paths are kept, so it must end somewhere."""

Pose = tuple[float, float, float]


@dataclass
class Branch:
    """The path of one future: poses by the model's odometry, and where it left another branch.

    Attributes:
        number: From 0, in the order of their beginning.
        parent: The branch that it left, or None for the first.
        fork: The kept moment that it begins at, or None for the first.
        poses: From its first moment on.
    """

    number: int
    parent: int | None
    fork: int | None
    poses: list[Pose] = field(default_factory=list)


@dataclass(frozen=True)
class Fork:
    """A moment that was kept, and the branch that it lies on."""

    number: int
    moment: Moment
    branch: int


class Walk:
    """A walk of one person; it shares the dream's rules with others and nothing else.

    Args:
        dream: The rules.
        seed: Of the maze.
    """

    def __init__(self, dream: Dream, seed: int) -> None:
        self.dream, self.seed = dream, seed
        self.look: LookAround
        self.moment: Moment
        self.look, self.moment = dream.begin(seed)
        self.meter = MemoryMeter(self.look)
        self.forks: dict[int, Fork] = {}
        self.branches = [Branch(0, None, None, [self.pose])]
        self.branch = self.branches[0]
        self._next_fork = 1

    @property
    def pose(self) -> Pose:
        """Where the dreamer is, by the model's odometry."""
        return self.dream.pose(self.moment)

    @property
    def looked_path(self) -> list[Pose]:
        """Poses of the real frames that the dream began with."""
        return self.dream.maze_poses(self.moment.real, self.look.proprio)

    def move(self, move: int) -> Moment:
        """Imagine the frame that a move leads to."""
        return self._go(self.dream.step(self.moment, move))

    def follow(self, plan: Plan, index: int) -> Moment:
        """Make move ``index`` of a plan."""
        return self._go(self.dream.step_float(self.moment, plan.actions[0, index]))

    def recall(self) -> Recall:
        """How well this view comes back from memory."""
        return self.meter.read(self.dream, self.moment)

    def fork(self) -> Fork:
        """Keep this moment.

        Raises:
            UserError: If as many are kept as may be.
        """
        if len(self.forks) >= MAX_FORKS:
            raise UserError(f"A walk keeps at most {MAX_FORKS} moments: let one go first.")
        fork = Fork(self._next_fork, self.moment, self.branch.number)
        self._next_fork += 1
        self.forks[fork.number] = fork
        return fork

    def forget(self, number: int) -> None:
        """Let a kept moment go."""
        self.forks.pop(self._kept(number).number)

    def restore(self, number: int) -> Moment:
        """Go back to a kept moment; what follows is another future."""
        fork = self._kept(number)
        self.moment = fork.moment
        self.branch = Branch(len(self.branches), fork.branch, fork.number, [self.pose])
        self.branches.append(self.branch)
        return self.moment

    def _go(self, moment: Moment) -> Moment:
        if moment.index - self.dream.context_frames >= MAX_STEPS:
            raise UserError(f"This walk is {MAX_STEPS:,} frames long; begin another maze.")
        self.moment = moment
        self.branch.poses.append(self.pose)
        return moment

    def _kept(self, number: int) -> Fork:
        if number not in self.forks:
            raise UserError(f"There is no kept moment {number}.")
        return self.forks[number]
