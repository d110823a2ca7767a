import os
import shutil
import time

import pytest

from lssvwm_agents.errors import UserError
from lssvwm_agents.weights import find_model, load_model, shipped_names
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(channels=(8, 8, 8), latent_channels=2),
        backbone=BackboneConfig(width=16, head_dim=8, conditioning_width=8, state_dim=8, block_sizes=(2, 1)),
    )
    folder = tmp_path_factory.mktemp("run")
    WorldModel(config).save_pretrained(folder / "model")
    return folder


def test_a_run_and_its_model_folder_are_the_same(run):
    for place in (run, run / "model", str(run), str(run / "model")):
        model = load_model(place)
        assert model.config.backbone.width == 16 and not model.training


@pytest.mark.parametrize("name", ["no-such-model", "runs/none", "/nowhere/at/all", "a/b/c"])
def test_what_is_not_there_names_what_is(name):
    with pytest.raises(UserError) as error:
        load_model(name)
    text = str(error.value)
    assert name in text and "shipped model (" in text and "\n" not in text
    for shipped in shipped_names():
        assert shipped in text


def test_a_folder_without_weights_says_so(tmp_path):
    with pytest.raises(UserError, match="holds no world model"):
        load_model(tmp_path)


def test_only_org_and_name_is_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("some-org/some-model") == "some-org/some-model"
    (tmp_path / "some-org").mkdir()
    with pytest.raises(UserError):
        find_model("some-org/some-model")


def test_a_hub_that_cannot_be_reached_is_told_soon(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match="could not be reached, and `org/none` was not downloaded"):
        load_model("org/none")
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_told(run, tmp_path, name):
    shutil.copytree(run / "model", tmp_path / "model")
    content = (run / "model" / name).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"{}"):
        (tmp_path / "model" / name).write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read as a world model"):
            load_model(tmp_path)


def test_saved_files_can_be_read_by_whom_the_umask_allows(run):
    mask = os.umask(0)
    os.umask(mask)
    for file in (run / "model").iterdir():
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask, file.name


def test_loading_prints_nothing(run, capfd):
    load_model(run)
    assert capfd.readouterr() == ("", "")


def test_a_device_that_is_not_there_is_told(run):
    with pytest.raises(UserError, match="The device `nonsense` cannot be used"):
        load_model(run, "nonsense")
