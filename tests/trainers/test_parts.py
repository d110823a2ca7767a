"""Schedules, averages, guards, checkpoints and run folders."""

import json
import math

import pytest
import torch

from lssvwm_agents.errors import UserError
from lssvwm_agents.trainers.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    load_latest,
    restore_optimizer,
    save_checkpoint,
)
from lssvwm_agents.trainers.config import OptimizationConfig, TrainingConfig
from lssvwm_agents.trainers.data_source import RefreshedData, latest_rendering
from lssvwm_agents.trainers.distributed import Process, choose_device
from lssvwm_agents.trainers.ema import Ema
from lssvwm_agents.trainers.logging import MetricMean, RunLog
from lssvwm_agents.trainers.nan_guard import NanGuard
from lssvwm_agents.trainers.optimizers import build_optimizers, split_parameters
from lssvwm_agents.trainers.run_folder import claim, training_progress
from lssvwm_agents.trainers.schedules import curriculum_length, decay_factor, ema_decay_at, warmup_factor

CPU = torch.device("cpu")


def test_learning_rate_falls_to_zero():
    assert decay_factor(0.0, "cosine") == 1.0
    assert decay_factor(0.5, "cosine") == pytest.approx(0.5)
    assert decay_factor(1.0, "cosine") == pytest.approx(0.0)
    assert decay_factor(0.25, "linear") == 0.75
    assert decay_factor(0.5, "linear", decay_start=0.5) == 1.0
    assert decay_factor(0.75, "linear", decay_start=0.5) == 0.5
    assert decay_factor(0.9, "constant") == 1.0
    with pytest.raises(ValueError, match="`decay`"):
        decay_factor(0.5, "stairs")


def test_warmup_curriculum_and_average_by_hand():
    assert [warmup_factor(u, 4) for u in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warmup_factor(0, 0) == 1.0
    curriculum = ((0.0, 16), (0.5, 32))
    assert [curriculum_length(curriculum, p) for p in (0.0, 0.49, 0.5, 1.0)] == [16, 16, 32, 32]
    assert ema_decay_at(0, 0.999) == 0.1 and ema_decay_at(10**6, 0.999) == 0.999


@pytest.mark.parametrize("curriculum", [(), ((0.1, 16),), ((0.0, 16), (0.9, 32), (0.5, 64)), ((0.0, 1),)])
def test_a_wrong_curriculum_is_refused(curriculum):
    with pytest.raises(ValueError, match="curriculum"):
        TrainingConfig(curriculum=curriculum)


def test_time_schedule_needs_a_budget():
    with pytest.raises(ValueError, match="time_budget_seconds"):
        OptimizationConfig(schedule="time")


def test_nan_guard_counts_and_stops():
    guard = NanGuard(3)
    assert guard.accept(True, 0)
    assert not guard.accept(False, 1) and not guard.accept(False, 2)
    assert guard.accept(True, 3) and guard.skipped == 2
    guard.accept(False, 4), guard.accept(False, 5)
    with pytest.raises(FloatingPointError, match="3 updates in a row"):
        guard.accept(False, 6)


def test_ema_averages_trainable_parameters_only():
    module = torch.nn.Linear(2, 1)
    module.bias.requires_grad_(False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    ema = Ema(module)
    with torch.no_grad():
        module.weight.fill_(1.0)
    ema.update(0.75)
    assert set(ema.average) == {"weight"}
    with ema.applied():
        assert module.weight.tolist() == [[0.25, 0.25]]
    assert module.weight.tolist() == [[1.0, 1.0]]


def test_checkpoints_keep_two_and_come_back(tmp_path):
    assert load_latest(tmp_path) is None
    for update in (1, 2, 3):
        tensors = {"model": {"w": torch.tensor([float(update)])}, "empty": {}}
        save_checkpoint(tmp_path, update, Checkpoint(tensors, {"update": update}))
    (tmp_path / ".tmp-999").mkdir()  # what a killed process leaves
    loaded = load_latest(tmp_path)
    assert loaded.progress == {"update": 3} and loaded.tensors["model"]["w"].tolist() == [3.0]
    assert sorted(p.name for p in tmp_path.glob("update-*")) == ["update-000000002", "update-000000003"]
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pkl", ".pth")]
    (tmp_path / "latest").write_text("update-000000009")
    with pytest.raises(ValueError, match="not there"):
        load_latest(tmp_path)


def test_progress_is_known_by_the_log_where_checkpoints_were_deleted(tmp_path):
    assert training_progress(tmp_path) is None
    lines = [
        {"phase": "world_model", "update": 10, "elapsed": 1.5},
        {"phase": "world_model", "update": 20, "elapsed": 3.0},
        {"phase": "world_model", "update": 25, "val/loss": 1.0},
        {"phase": "other", "update": 99, "elapsed": 9.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(text + '{"phase": "world_model", "upd')  # cut short by a kill
    assert training_progress(tmp_path) == {"update": 25, "elapsed": 3.0}
    save_checkpoint(
        tmp_path / "checkpoints" / "world_model", 30, Checkpoint({}, {"update": 30, "elapsed": 4.0})
    )
    assert training_progress(tmp_path) == {"update": 30, "elapsed": 4.0}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_optimizer_state_goes_round(kind):
    def train(module, optimizers, updates):
        for u in updates:
            module(torch.full((2, 4), float(u + 1))).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    def fresh():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
        return module, build_optimizers(module, OptimizationConfig(optimizer=kind), CPU)

    straight, optimizers = fresh()
    train(straight, optimizers, range(6))
    first, optimizers = fresh()
    train(first, optimizers, range(3))
    states = [flatten_optimizer(o) for o in optimizers]
    second, optimizers = fresh()
    second.load_state_dict(first.state_dict())
    for optimizer, state in zip(optimizers, states, strict=True):
        restore_optimizer(optimizer, {k: v.clone() for k, v in state.items()})
    train(second, optimizers, range(3, 6))
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_biases_are_not_decayed_and_muon_takes_matrices():
    module = torch.nn.ModuleDict({"inner": torch.nn.Linear(2, 2), "embed": torch.nn.Linear(2, 2)})
    muon, decayed, plain = split_parameters(module, use_muon=True)
    assert [n for n, _ in muon] == ["inner.weight"]
    assert [n for n, _ in decayed] == ["embed.weight"]
    assert sorted(n for n, _ in plain) == ["embed.bias", "inner.bias"]


def test_metric_mean_survives_a_checkpoint():
    straight, resumed = MetricMean(), MetricMean()
    straight.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    resumed.load(json.loads(json.dumps(straight.state())), CPU)
    for metrics in (straight, resumed):
        metrics.add({"a": torch.tensor(4.0)})
    assert straight.take() == resumed.take() == {"a": 2.5, "b": 2.0}


def test_log_drops_lines_the_checkpoint_does_not_know(tmp_path):
    with RunLog(tmp_path, "world_model", tensorboard=False) as log:
        for update in (1, 2, 3):
            log.write(update, {"loss": math.nan if update == 2 else 1.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"phase": "world_mod')  # cut short by a kill
    with RunLog(tmp_path, "world_model", resume_update=2, tensorboard=False) as log:
        log.write(3, {"loss": 5.0})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["update"], line["loss"]) for line in lines] == [(1, 1.0), (2, None), (3, 5.0)]


def test_a_run_folder_belongs_to_one_experiment(tmp_path):
    run = tmp_path / "run"
    claim(run, {"a": {"learning_rate": 1.0, "log_every": 5}})
    claim(run, {"a": {"learning_rate": 1.0, "log_every": 7}})
    with pytest.raises(UserError, match=r"a.learning_rate was 1.0 and is now 2.0"):
        claim(run, {"a": {"learning_rate": 2.0, "log_every": 5}})
    later = {"a": {"learning_rate": 1.0, "log_every": 5, "added_since": 0.5}}
    with pytest.raises(UserError, match="added_since was 'nothing' and is now 0.5"):
        claim(run, later)
    claim(run, later, {"a": {"added_since": 0.5, "gone": 1}})
    with pytest.raises(UserError, match="added_since was 0.25 and is now 0.5"):
        claim(run, later, {"a": {"added_since": 0.25}})
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        claim(other, {})


def test_values_beyond_what_the_heads_can_say_are_told(capsys):
    from lssvwm_agents.data.latents import make_dataset
    from lssvwm_agents.trainers.store_fit import warn_of_values
    from lssvwm_agents.worldmodel import WorldModelConfig

    rewards = torch.full((1, 200), 5.0)
    none = torch.zeros(1, 200, 1)
    data = make_dataset(none, none, None, rewards, torch.ones(1, 200), torch.tensor([200]), 0.95)
    warn_of_values(data, WorldModelConfig(value_discount=0.95))
    assert "100.0 % of the values are beyond 53.6" in capsys.readouterr().out  # 5 / (1 - 0.95) is nearly 100
    warn_of_values(data, WorldModelConfig(value_discount=0.95, symlog_limit=5.0))
    assert capsys.readouterr().out == ""


def test_rows_share_a_batch():
    assert [Process(r, 3, CPU).rows(8) for r in range(3)] == [(0, 2), (2, 5), (5, 8)]
    with pytest.raises(ValueError, match="a row for each of 3 processes, got 2"):
        Process(0, 3, CPU).rows(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without CUDA")
def test_cuda_is_asked_for_in_vain():
    with pytest.raises(ValueError, match="say --device cpu"):
        choose_device("cuda")


def test_rendering_of_a_block_depends_on_the_update_alone():
    assert [latest_rendering(r, 0, 3) for r in range(8)] == [0, 1, 1, 1, 4, 4, 4, 7]
    assert [latest_rendering(r, 2, 3) for r in range(8)] == [0, 0, 0, 3, 3, 3, 6, 6]


def test_refreshed_data_resumes_with_the_same_episodes():
    from lssvwm_agents.data.latents import make_dataset

    def render(count, rendering):
        one = 100.0 * rendering + torch.arange(count)[:, None].expand(-1, 4).contiguous()
        return make_dataset(
            one[..., None, None, None], one[..., None], None, one, one, torch.full((count,), 4), 0.9
        )

    straight = RefreshedData(render, 10, refresh_every=5, refresh_share=0.3)
    for update in range(24):
        straight.at(update)
    resumed = RefreshedData(render, 10, refresh_every=5, refresh_share=0.3)
    assert torch.equal(straight.at(23).reward, resumed.at(23).reward)
    assert straight.at(23).reward[:, 0].tolist() == [100, 101, 102, 200, 201, 202, 300, 301, 302, 400]
