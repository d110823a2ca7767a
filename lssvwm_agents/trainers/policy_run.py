"""A whole run of ``train-policy``: collect, fit, improve, evaluate, and again; resumed where it was.

What is done is kept in ``state.json``: (iteration, stage) of the last stage that was finished. A stage that
was cut off is called again, and goes on by itself: the collector at the next episode, trainers at their
checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.policy import evaluate_policy, growing_gap
from lssvwm_agents.files import write_json
from lssvwm_agents.policies.behaviour import check_fits
from lssvwm_agents.policies.inputs import FEATURES
from lssvwm_agents.recipes import RECIPES
from lssvwm_agents.report.run_info import run_info
from lssvwm_agents.trainers.distributed import choose_device
from lssvwm_agents.trainers.logging import RunLog
from lssvwm_agents.trainers.model_refresh import (
    RefreshConfig,
    check_refresh,
    collect_episodes,
    fit_model,
)
from lssvwm_agents.trainers.policy_algorithms import (
    Improver,
    check_going_on,
    check_readable,
    check_recorded,
    check_value,
    make_improver,
)
from lssvwm_agents.trainers.policy_config import Algorithm, PolicyRecipe
from lssvwm_agents.trainers.run_folder import claim
from lssvwm_agents.weights import find_model, load_model
from lssvwm_agents.worldmodel import WorldModel

STAGES = ("collect", "fit", "improve", "evaluate")

SETTING_DEFAULTS: dict[str, Any] = {
    "recipe": dataclasses.asdict(PolicyRecipe()),
    "store": None,
    "refresh": dataclasses.asdict(RefreshConfig()),
}
"""What settings are that a run of an earlier version knew nothing of (see :func:`claim`)."""


@dataclass(frozen=True)
class PolicyRunOptions:
    """What a run takes from outside its recipe.

    Attributes:
        out: The run's folder.
        env: Gymnasium id; empty for the environment that a fixed ``model`` was trained for.
        algo: ``actor-critic``, ``ppo`` or ``sac``.
        model: A world model that stays as it is; None to collect episodes and to fit one.
        store: With ``model``: recorded episodes that imagination starts from; None to play them live.
        iterations: Times that the policy is improved and evaluated.
        allow_other_env: Also take an environment that ``model`` was not trained for by name.
        controls: Mazes: score random, explorer and oracle too, once.
        device: ``auto``, ``cpu`` or ``cuda``.
        stop_after: Seconds after which to stop, to be resumed; 0 for no limit.
        tensorboard: Whether to write TensorBoard files.
        refresh: How episodes are collected and the world model is fitted, if there is no ``model``.
    """

    out: Path
    env: str = ""
    algo: Algorithm = "actor-critic"
    model: str | None = None
    store: Path | None = None
    iterations: int = 5
    allow_other_env: bool = False
    controls: bool = True
    device: str = "auto"
    stop_after: float = 0.0
    tensorboard: bool = True
    refresh: RefreshConfig = field(default_factory=RefreshConfig)


class PolicyRun:
    """One folder, and what is done in it.

    Args:
        recipe: What is trained, and how.
        options: Where, in what, and for how long.
    """

    def __init__(self, recipe: PolicyRecipe, options: PolicyRunOptions) -> None:
        if options.iterations < 1:
            raise UserError(f"`iterations` must be at least 1, got {options.iterations}.")
        if options.model is None and not options.env:
            raise UserError("say which environment to train in (--env), or which world model (--model).")
        training = recipe.training
        if options.algo != "actor-critic" and (training.reuse > 1 or training.cuda_graph):
            raise UserError(
                "`training.reuse` and `training.cuda_graph` are of the actor-critic: with "
                f"--algo {options.algo} leave them at 1 and off, got {training.reuse} and "
                f"{training.cuda_graph}."
            )
        device = choose_device(options.device)
        if training.cuda_graph and device.type != "cuda":
            raise UserError(f"`training.cuda_graph` needs a CUDA device, got {device}: leave it off.")
        if options.algo != "actor-critic" and training.clone_updates > 0:
            raise UserError(
                f"`training.clone_updates` is of the actor-critic: with --algo {options.algo} leave it at 0, "
                f"got {training.clone_updates}."
            )
        if options.algo != "actor-critic" and recipe.objective.bootstrap != "critic":
            raise UserError(
                f"`objective.bootstrap` is of the actor-critic: with --algo {options.algo} leave it at "
                f"critic, got {recipe.objective.bootstrap}."
            )
        if options.algo != "actor-critic" and recipe.inputs != FEATURES:
            raise UserError(
                f"`inputs` are of the actor-critic: with --algo {options.algo} leave them at features, got "
                f"{', '.join(recipe.inputs)}."
            )
        if options.algo != "actor-critic" and recipe.symlog_limit != PolicyRecipe.symlog_limit:
            raise UserError(
                f"`symlog_limit` is of the actor-critic: with --algo {options.algo} leave it at "
                f"{PolicyRecipe.symlog_limit:g}, got {recipe.symlog_limit:g}."
            )
        if options.algo != "actor-critic" and (recipe.starts.go_on_share > 0 or training.noise_colour > 0):
            raise UserError(
                "`starts.go_on_share` and `training.noise_colour` are of the actor-critic: with "
                f"--algo {options.algo} leave them at 0, got {recipe.starts.go_on_share} and "
                f"{training.noise_colour}."
            )
        if options.model is not None:
            check_recorded(recipe, options.store)
        if options.store is not None:
            if options.model is None:
                raise UserError(
                    "--store goes with --model: without a model, a run collects its own episodes."
                )
            EpisodeStore.open(options.store)  # a wrong path is told before a folder is made
        self.recipe, self.options, self.out = recipe, options, options.out
        self.device = device
        self.deadline = time.monotonic() + options.stop_after if options.stop_after > 0 else None
        if options.model is None:
            check_refresh(options.refresh, options.env)
            check_value(recipe, RECIPES[options.refresh.recipe]().model)
            check_going_on(recipe, RECIPES[options.refresh.recipe]().model)
        else:
            find_model(options.model)  # a wrong name is told before a folder is made
            if (
                recipe.objective.bootstrap != "critic"
                or training.clone_updates
                or recipe.inputs != FEATURES
                or recipe.starts.go_on_share > 0
            ):
                model = load_model(options.model)
                check_value(recipe, model.config)
                check_readable(recipe, model.config)
                check_going_on(recipe, model.config)
                if training.clone_updates > 0 and options.store is not None:
                    check_fits(model, EpisodeStore.open(options.store))
        claim(
            self.out,
            {
                "recipe": dataclasses.asdict(recipe),
                "env": options.env,
                "algo": options.algo,
                "model": options.model,
                "store": None if options.store is None else str(options.store),
                "refresh": dataclasses.asdict(options.refresh) if options.model is None else None,
            },
            SETTING_DEFAULTS,
        )

    # --- what is done -----------------------------------------------------------------------------

    def _done(self) -> tuple[int, int]:
        """(iteration, number of the stage) to do next."""
        path = self.out / "state.json"
        if not path.is_file():
            return 0, 0
        state = json.loads(path.read_text())
        stage = STAGES.index(state["stage"]) + 1
        return state["iteration"] + stage // len(STAGES), stage % len(STAGES)

    def _finish(self, iteration: int, stage: str) -> None:
        write_json(self.out / "state.json", {"iteration": iteration, "stage": stage})

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    # --- the run ----------------------------------------------------------------------------------

    def run(self) -> bool:
        """Go on until all iterations are done, or it is time to stop; gives whether all are done."""
        iteration, first = self._done()
        stages: dict[str, Callable[[int], bool]] = {
            "collect": self._collect,
            "fit": self._fit,
            "improve": self._improve,
            "evaluate": self._evaluate,
        }
        while iteration < self.options.iterations:
            for stage in STAGES[first:]:
                if self._late() or not stages[stage](iteration):
                    print(f"stopped in iteration {iteration} at `{stage}`; all of it is in {self.out}")
                    return False
                self._finish(iteration, stage)
            iteration, first = iteration + 1, 0
        print(f"finished after {iteration} iterations; policy: {self.out / 'policy'}")
        return True

    def _model_name(self, iteration: int) -> str:
        """The world model of an iteration; -1 has none of its own."""
        return self.options.model or str(self.out / "models" / f"{iteration:03d}")

    def _world_model(self, iteration: int) -> WorldModel:
        return load_model(self._model_name(iteration), self.device)

    def _collect(self, iteration: int) -> bool:
        if self.options.model is not None:
            return True
        policy = str(self.out / "policy") if iteration > 0 else None
        collect_episodes(
            self.out / "episodes",
            self.options.env,
            self.options.refresh,
            iteration,
            policy,
            str(self.device),
            self.recipe.training.seed,
        )
        width = EpisodeStore.open(self.out / "episodes" / "all").spec.proprio_dim
        if "odometry" in self.recipe.inputs and width == 0:
            raise UserError(
                f"`inputs` must not hold odometry for `{self.options.env}`, whose episodes have none: begin "
                "anew without it."
            )
        return True

    def _fit(self, iteration: int) -> bool:
        if self.options.model is not None:
            return True
        left = 0.0 if self.deadline is None else max(self.deadline - time.monotonic(), 1.0)
        return fit_model(
            self.out / "episodes" / "all",
            Path(self._model_name(iteration)),
            None if iteration == 0 else self._model_name(iteration - 1),
            self.options.refresh,
            self.options.device,
            left,
            self.options.tensorboard,
            self.recipe.training.seed,
        )

    def _improver(self, iteration: int) -> Improver:
        return make_improver(
            self.options.algo,
            self._world_model(iteration),
            self._model_name(iteration),
            self.recipe,
            self.out,
            self.options.env,
            self.options.store if self.options.model is not None else self.out / "episodes" / "all",
            self.options.tensorboard,
            self.options.allow_other_env,
        )

    def _improve(self, iteration: int) -> bool:
        return self._improver(iteration).improve(iteration, self.deadline)

    def _evaluate(self, iteration: int) -> bool:
        improver = self._improver(iteration)
        config, folder = self.recipe.evaluation, self.out / "evaluations"
        policy = improver.policy()
        mazes = self.options.controls and iteration == 0 and improver.is_maze
        result = evaluate_policy(
            improver.model,
            policy,
            config,
            improver.env_id,
            seed=self.recipe.training.seed,
            controls=("random", "explorer", "oracle") if mazes else (),
            film=folder / f"{iteration:03d}.mp4" if config.film else None,
            allow_other_env=True,
        )
        result |= {"iteration": iteration, "updates": improver.updates, **self._real_steps(improver.updates)}
        result |= {"algo": self.options.algo, "model": self._model_name(iteration)}
        result |= {"policy_sha256": improver.sha256(), **run_info(self.device)}
        write_json(folder / f"{iteration:03d}.json", result)
        self._report(result, self._history(iteration))
        return True

    def _real_steps(self, updates: int) -> dict[str, int]:
        """Real frames that were collected, and that the policy's own streams have played beside."""
        store, starts = self.out / "episodes" / "all", self.recipe.starts
        collected = EpisodeStore.open(store).num_frames if self.options.model is None else 0
        streaming = self.options.algo == "actor-critic" and starts.stream_share > 0
        batches = -(-updates // self.recipe.training.reuse)
        streamed = batches * starts.streams * starts.stream_frames if streaming else 0
        return {"collected_frames": collected, "streamed_frames": streamed}

    def _history(self, iteration: int) -> list[dict[str, Any]]:
        """Imagined against real return at every evaluation so far."""
        files = [self.out / "evaluations" / f"{i:03d}.json" for i in range(iteration + 1)]
        found = [json.loads(file.read_text())["imagined_against_real"] for file in files if file.is_file()]
        return [one for one in found if one is not None]

    def _report(self, result: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Log an evaluation, and say so if the policy exploits the model."""
        score, compared = result["policy"], result["imagined_against_real"]
        values = {"score": score["mean"], "score_low": score["ci95"][0], "score_high": score["ci95"][1]}
        values["success_rate"] = result["success_rate"]
        words = f"iteration {result['iteration']}: {score['mean']:.2f} ({score['ci95'][0]:.2f} to "
        words += f"{score['ci95'][1]:.2f})"
        for name in ("random", "explorer", "oracle"):
            if name in result:
                words += f", {name} {result[name]['mean']:.2f}"
                values[f"score_{name}"] = result[name]["mean"]
        if compared is not None:
            values |= {name: compared[name] for name in ("imagined", "imagined_sure", "real")}
            values["gap"] = compared["gap"]["mean"]
            values |= {k: compared[k] for k in ("correlation", "spread") if compared[k] is not None}
            words += f"; {compared['horizon']} moves: imagined {compared['imagined']:.2f}"
            words += f" (sure: {compared['imagined_sure']:.2f})"
            words += f", real {compared['real']:.2f}"
        warning = growing_gap(history)
        values["gap_grows"] = float(warning is not None)
        with RunLog(self.out, "evaluation", result["updates"] - 1, self.options.tensorboard) as log:
            log.write(result["updates"], values)
        tqdm.write(words)
        if warning is not None:
            tqdm.write(f"warning: {warning}")


def run_policy(recipe: PolicyRecipe, options: PolicyRunOptions) -> bool:
    """Train a policy, or go on; gives whether all iterations are done.

    Raises:
        UserError: If the folder holds another run, or the parts do not fit together.
    """
    return PolicyRun(recipe, options).run()
