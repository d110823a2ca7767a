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
