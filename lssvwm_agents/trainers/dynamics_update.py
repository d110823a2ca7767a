"""The updates that one batch of imagined rollouts serves, by back-propagation through the dynamics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree
from tqdm import tqdm

from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.actors import Actor
from lssvwm_agents.policies.imagined_rollouts import FeatureValue
from lssvwm_agents.policies.through_dynamics import RolloutSpan, critic_gradients, dynamics_gradients
from lssvwm_agents.trainers.cuda_graph import GradientGraph, capture_gradients
from lssvwm_agents.trainers.going_on import RolloutEnds
from lssvwm_agents.trainers.imagined_dynamics import ImaginedDynamics
from lssvwm_agents.trainers.loss_modules import LossAndMetrics
from lssvwm_agents.trainers.policy_config import PolicyTrainingConfig
from lssvwm_agents.worldmodel import WorldModel, WorldState


@dataclass(frozen=True)
class _Captured:
    """Graphs of a batch's updates, and where they read what it begins with.

    Attributes:
        begun: Tensors of states and noise, in the order of their pytree.
        first: The update of actor and critic.
        later: The updates of the critic alone, from the rollouts of the first; None if there are none.
    """

    begun: list[torch.Tensor]
    first: GradientGraph[tuple[torch.Tensor, dict[str, torch.Tensor], list[RolloutSpan]]]
    later: GradientGraph[LossAndMetrics] | None


class DynamicsUpdate:
    """In a batch's first update actor and critic learn, in all others the critic alone.

    Gradients stay in the policy's parameters. As CUDA graphs (``training.cuda_graph``) it computes the same,
    and what it returns is valid until the next call.

    Args:
        model: Frozen.
        policy: What is improved.
        objective: What is followed.
        training: Forks of each start, updates of a batch, how frames are imagined, whether by CUDA graphs.
        prior: What the policy is held near; frozen. None for nothing.
        bootstrap: What says what follows after a frame; None for the slow critic.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        objective: ActorCriticObjective,
        training: PolicyTrainingConfig,
        prior: Actor | None = None,
        bootstrap: FeatureValue | None = None,
    ) -> None:
        self.model, self.policy, self.objective, self.training = model, policy, objective, training
        self.prior, self.bootstrap = prior, bootstrap
        self._spans: list[RolloutSpan] = []
        self._captured: _Captured | None = None

    def first(self, state: WorldState, noise: torch.Tensor, of_frames: torch.Tensor | None) -> LossAndMetrics:
        """Imagine a batch, and take the gradients of its first update.

        Args:
            state: The starts; batches that are replayed have as many each.
            noise: (H, R, A) standard normal, of the actions.
            of_frames: (H, R, C, h, w) the same, of the frames; None for mean futures.
        """
        if not self.training.cuda_graph:
            loss, metrics, self._spans = self._through_dynamics(state, noise, of_frames)
            return loss, metrics
        leaves, structure = pytree.tree_flatten((state, noise, of_frames))
        if self._captured is None:
            self._captured = self._capture(leaves, structure)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        with torch.no_grad():
            for place, tensor in zip(self._captured.begun, tensors, strict=True):
                place.copy_(tensor)
        loss, metrics, self._spans = self._captured.first.replay()
        return loss, metrics

    @property
    def ended(self) -> RolloutEnds:
        """Where the rollouts of the batch that was imagined last ended."""
        last = self._spans[-1]
        assert isinstance(last.end, WorldState)
        return last.end, last.reach[:, -1] * last.rollouts.continuation[:, -1]

    def later(self) -> LossAndMetrics:
        """Take the gradients of another update from the batch that was imagined last."""
        if self._captured is None:
            return critic_gradients(self.policy, self._spans, self.objective, self.bootstrap)
        assert self._captured.later is not None
        return self._captured.later.replay()

    def _through_dynamics(
        self, state: WorldState, noise: torch.Tensor, of_frames: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[RolloutSpan]]:
        training = self.training
        dynamics = ImaginedDynamics(self.model, training.num_denoising_steps, of_frames, training.doubt)
        forks = self.model.repeat(state, training.forks)
        return dynamics_gradients(
            dynamics, forks, self.policy, noise, self.objective, self.prior, self.bootstrap
        )

    def _capture(self, leaves: list[object], structure: pytree.TreeSpec) -> _Captured:
        """Capture both kinds of update; the policy is afterwards as it was."""
        tqdm.write("capturing the updates of a batch as CUDA graphs")
        kept = {name: tensor.clone() for name, tensor in self.policy.state_dict().items()}
        own = [leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        begun = pytree.tree_unflatten(own, structure)
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        pool = torch.cuda.graph_pool_handle()
        first = capture_gradients(lambda: self._through_dynamics(*begun), parameters, pool)
        first.replay()  # so that the critic is warmed up on rollouts
        later = None
        if self.training.reuse > 1:
            spans = first.result[2]
            later = capture_gradients(
                lambda: critic_gradients(self.policy, spans, self.objective, self.bootstrap), parameters, pool
            )
        self.policy.load_state_dict(kept)
        return _Captured([leaf for leaf in own if isinstance(leaf, torch.Tensor)], first, later)
