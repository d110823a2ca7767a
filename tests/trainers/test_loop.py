"""The loop on a problem of one parameter."""

import json
import time

import pytest
import torch

from lssvwm_agents.trainers.config import OptimizationConfig
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.loop import Share, TrainingLoop

PROCESS = Process(0, 1, torch.device("cpu"))


class Parabola(torch.nn.Module):
    """(x - target)**2."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, target):
        loss = (self.x - target) ** 2
        return loss, {"distance": (self.x - target).abs().detach()}


def share(value):
    return Share((torch.tensor(value),), 1, 1, 8, {"window_length": 8.0})


def loop(tmp_path, module=None, **changes):
    defaults = dict(
        updates=60, learning_rate=0.2, warmup_updates=0, log_every=1, ema_decay=0.5, validate_every=20
    )
    config = OptimizationConfig(**{**defaults, **changes})
    return TrainingLoop(module or Parabola(), config, PROCESS, tmp_path, "world_model", tensorboard=False)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def test_it_learns_logs_and_validates(tmp_path):
    training = loop(tmp_path)
    result = training.run(lambda update, progress: share(3.0), lambda: {"val/x": training.module.x.item()})
    assert result.finished and result.update == 60
    assert float(training.module.x.detach()) == pytest.approx(3.0, abs=0.1)
    written = lines(tmp_path)
    assert [line["update"] for line in written if "val/x" in line] == [20, 40, 60]
    first = written[0]
    assert first["loss"] == 9.0 and first["distance"] == 3.0 and first["window_length"] == 8.0
    assert {"learning_rate", "gradient_norm", "frames_per_second", "skipped", "elapsed"} <= first.keys()


def test_a_bad_update_is_skipped_and_counted(tmp_path):
    training = loop(tmp_path, updates=10, validate_every=0)
    before = []

    def make_share(update, progress):
        before.append(float(training.module.x.detach()))
        return share(float("nan") if update == 4 else 3.0)

    training.run(make_share)
    assert before[5] == before[4] != before[3]
    assert training.guard.skipped == 1 and lines(tmp_path)[-1]["skipped"] == 1.0
    assert torch.isfinite(training.module.x)


def test_bad_updates_in_a_row_stop(tmp_path):
    training = loop(tmp_path, max_skipped_in_a_row=4)
    with pytest.raises(FloatingPointError, match="4 updates in a row, the last being update 3"):
        training.run(lambda update, progress: share(float("inf")))


def test_the_gradient_is_clipped(tmp_path):
    training = loop(tmp_path, gradient_clip=0.5)
    seen = []
    training.optimizers[0].register_step_pre_hook(lambda o, a, k: seen.append(float(training.module.x.grad)))
    training.run(lambda update, progress: share(100.0))
    assert max(map(abs, seen)) <= 0.5 + 1e-6


def test_a_time_budget_ends_the_training(tmp_path):
    progress_seen = []

    def make_share(update, progress):
        progress_seen.append(progress)
        time.sleep(0.01)
        return share(3.0)

    changes = dict(updates=10**6, schedule="time", time_budget_seconds=0.4, decay="linear")
    result = loop(tmp_path, **changes).run(make_share)
    assert result.finished and 0.4 <= result.elapsed < 2.0
    assert progress_seen == sorted(progress_seen) and progress_seen[-1] > 0.8
    assert lines(tmp_path)[-1]["learning_rate"] < 0.05
    assert loop(tmp_path, **changes).finished


def test_a_deadline_stops_and_the_next_loop_goes_on(tmp_path):
    def slowly(update, progress):
        time.sleep(0.005)
        return share(3.0)

    first = loop(tmp_path).run(slowly, deadline=time.monotonic() + 0.1)
    assert not first.finished and 0 < first.update < 60
    second = loop(tmp_path)
    assert second.update == first.update
    assert second.run(slowly).finished
    straight = loop(tmp_path / "straight")
    straight.run(slowly)
    assert torch.equal(straight.module.x, second.module.x)
    assert torch.equal(straight.ema.average["x"], second.ema.average["x"])
