"""The whole benchmark and the comparison, on models of the recipe `maze-debug`."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from memory_builders import debug_model
from PIL import Image

from lssvwm_agents import cli
from lssvwm_agents.commands.compare import CompareArgs
from lssvwm_agents.commands.compare import run as run_command
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.compare import CompareOptions, compare, experiment_for, run_folder
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.evaluate.memory.benchmark import evaluate_memory
from lssvwm_agents.evaluate.memory.combine import combine
from lssvwm_agents.evaluate.memory.options import TESTS, MemoryOptions, parse_tests
from lssvwm_agents.evaluate.memory.world import check_model, far_frames
from lssvwm_agents.recipes import maze_debug, with_maze
from lssvwm_agents.report import file_sha256
from lssvwm_agents.report.frame_grid import GridRow, frame_grid
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import ObjectiveConfig, WorldModel

QUICK = MemoryOptions(
    context=32,
    horizon=4,
    periods=(24, 28),
    delays=(16,),
    drift_frames=6,
    drift_episodes=2,
    longest_stream=100,
    strips=1,
)
FLAGS = "--options.context 32 --options.horizon 4 --options.periods 24 28 --options.delays 16".split()
FLAGS += "--options.drift-frames 6 --options.drift-episodes 2 --options.longest-stream 100".split()
FLAGS += ["--options.strips", "1"]
CONDITIONS = {
    "ours",
    "wrong_actions",
    "context_cut",
    "shuffled_context",
    "tokenizer",
    "nearest_view",
    "copy_last",
    "mean_frame",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folders = {}
    for name in ("ours", "window_only"):
        folders[name] = tmp_path_factory.mktemp(name)
        debug_model(name).save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def told(saved, tmp_path_factory):
    """What `lssvwm evaluate memory` wrote and printed of two models: record, folder, text."""
    folder = tmp_path_factory.mktemp("evaluated")
    out, file, said = folder / "memory", folder / "record.json", io.StringIO()
    models = ["--model", str(saved["ours"]), "--window-only", str(saved["window_only"])]
    words = ["evaluate", "memory", *models, "--episodes", "2", "--seed", "1", "--out", str(out)]
    with contextlib.redirect_stdout(said):
        assert cli.main([*words, "--json", str(file), *FLAGS]) == 0
    return json.loads(file.read_text()), out, said.getvalue()


def test_the_record_holds_every_test_and_control_and_repeats(saved, told):
    result, _, _ = told
    json.dumps(result, allow_nan=False)
    assert set(TESTS) <= set(result)
    assert set(result["retrieval"]) == {"loop", "loop_own_odometry", "backwards"}
    for path in [*result["retrieval"].values(), *result["reasoning"].values()]:
        assert set(path["conditions"]) == CONDITIONS | {"window_only"}
        counts = path["frames"]
        for metrics in path["conditions"].values():
            for metric in ("psnr", "psnr_frame", "ssim", "place"):
                assert len(metrics[metric]) == len(result["distances"]) == len(counts)
            assert [value is not None for value in metrics["psnr"]] == [count > 0 for count in counts]
        assert {"far", "near", "unseen", "gap_closed"} <= set(path)
    loop = result["retrieval"]["loop"]
    assert sum(loop["frames"]) == 2 * 2 * 4 and loop["unseen"]["frames"] == 0
    assert result["retrieval"]["backwards"]["frames"][0] >= 2 * 2  # ages 1 and 3
    assert set(result["events"]["accuracy"]["ours"]) == {"16"}
    assert result["drift"]["depths"] == [1, 4] and result["drift"]["episodes"] == 2
    assert result["streaming"]["ours"]["frames"] == [100]
    assert len(result["seeds"]) == 2 and set(result["seeds"]) <= set(episode_seeds(1, 22))
    model, rival = (load_model(saved[name]) for name in ("ours", "window_only"))
    again = evaluate_memory(model, rival, 2, 1, tests=("retrieval", "events"), options=QUICK, progress=False)
    again = json.loads(json.dumps(again))
    assert again["retrieval"] == result["retrieval"] and again["events"] == result["events"]
    assert "drift" not in again


def test_the_command_writes_record_and_pictures(saved, told):
    record, out, printed = told
    assert {"command", "commit", "device", "versions", "seeds", "options"} <= set(record)
    assert record["out"] == str(out)
    assert record["model_sha256"] == file_sha256(saved["ours"] / "model.safetensors")
    assert record["window_only_sha256"] == file_sha256(saved["window_only"] / "model.safetensors")
    names = {path.name for path in out.iterdir()}
    curves = {"loop.png", "loop_own_odometry.png", "backwards.png", "reasoning.png"}
    strips = {name.replace(".png", "_strip_0.png") for name in curves}
    assert names == curves | strips | {"events.png", "drift.png", "streaming.png"}
    for name in names:
        pixels = np.asarray(Image.open(out / name).convert("RGB"))
        assert pixels.shape[0] > 200 and pixels.std() > 5
    assert "loop: PSNR in dB" in printed and "streaming, window_only" in printed


def test_a_model_from_actions_alone_has_no_odometry_tests():
    model = debug_model(odometry=False)
    result = evaluate_memory(model, None, 2, tests=("retrieval", "drift"), options=QUICK, progress=False)
    assert set(result["retrieval"]) == {"loop"} and not result["with_odometry"]
    assert set(result["retrieval"]["loop"]["conditions"]) == CONDITIONS
    assert "gap_closed" not in result["retrieval"]["loop"]


def test_far_is_twice_the_reach_of_the_windows_and_at_least_64():
    assert far_frames(debug_model()) == 64
    config = with_maze(maze_debug()).model
    deep = replace(config, backbone=replace(config.backbone, block_sizes=(1,) * 9, window=4))
    assert far_frames(WorldModel(deep)) == 72


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "--tests recall",
            "`tests` must be some of retrieval,reasoning,events,drift,streaming, got 'recall'",
        ),
        ("--episodes 1", "`episodes` must be at least 2, got 1"),
        ("--options.periods 25", "a loop's period must be even, at least 24 moves"),
        ("--options.periods 300", "at most the context's 256 frames, got 300"),
        ("--model runs/no-such-model", "There is no world model `runs/no-such-model`"),
    ],
)
def test_mistakes_get_one_sentence(saved, tmp_path, words, sentence, capsys):
    model = [] if "--model" in words else ["--model", str(saved["ours"])]
    assert cli.main(["evaluate", "memory", *model, "--out", str(tmp_path / "x"), *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"longest_stream": 50}, "`longest_stream` must be at least 100 frames, got 50"),
        ({"horizon": 300}, "`horizon` must be at most the context's 256 frames, got 300"),
        ({"periods": ()}, "`periods` and `delays` must not be empty"),
        ({"ssim_stride": 0}, "`ssim_stride` must be at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MemoryOptions(**options)


def test_models_of_another_kind_are_refused():
    config = replace(with_maze(maze_debug()).model, action_dim=2, discrete_actions=False)
    with pytest.raises(UserError, match=r"needs a model of 64x64 frames, Discrete\(6\) .* 2 action values"):
        evaluate_memory(WorldModel(config), progress=False)
    assert parse_tests("drift, events") == ("drift", "events")


def test_a_grid_names_the_row_that_does_not_fit():
    frames = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    assert frame_grid([GridRow("a", frames)], ["1", "2"], "title").shape[2] == 3
    with pytest.raises(ValueError, match=r"row `a` must have one frame \(and note\) per column \(3\), got 2"):
        frame_grid([GridRow("a", frames)], ["1", "2", "3"], "title")


# --- comparisons ------------------------------------------------------------------------------------


def tiny_recipe():
    recipe = with_maze(maze_debug())
    return replace(
        recipe,
        data=replace(recipe.data, num_envs=4, episode_length=16),
        tokenizer_training=replace(
            recipe.tokenizer_training, updates=3, num_frames=32, num_validation_frames=8
        ),
        training=replace(
            recipe.training,
            updates=3,
            frames_per_batch=32,
            curriculum=((0.0, 8),),
            log_every=1,
            num_validation_episodes=0,
        ),
    )


def test_a_comparison_trains_evaluates_and_skips_what_is_done(tmp_path, capsys):
    options = CompareOptions(
        out=tmp_path / "comparison",
        baselines=("ours", "window_only", "actions_window_only"),
        device="cpu",
        episodes=2,
        tests=("retrieval", "events", "streaming"),
        memory=replace(QUICK, periods=(24,), horizon=2, strips=0),
        tensorboard=False,
    )
    compare(tiny_recipe(), options)
    record = json.loads((options.out / "memory.json").read_text())
    lists = record["psnr"]
    assert set(lists) == {
        *("ours", "window_only", "actions_window_only"),
        *("copy_last", "wrong_actions", "context_cut"),
    }
    assert all(
        len(by_seed) == 1 and len(by_seed[0]) == len(record["distances"]) for by_seed in lists.values()
    )
    assert set(record["psnr_backwards"]) == set(lists) - {"actions_window_only"}
    told, alone = (
        json.loads((options.out / "evaluations" / f"{name}-seed0.json").read_text())
        for name in ("window_only", "actions_window_only")
    )
    assert told["model_sha256"] == alone["model_sha256"] and told["with_odometry"] > alone["with_odometry"]
    assert told["retrieval"]["loop"] != alone["retrieval"]["loop"]
    assert record["by_baseline"]["ours"]["unseen"]["loop"]["ours"].keys() >= {"psnr", "ssim"}
    assert len(record["gap_closed_far"]) == 1 and set(record["event_accuracy"]) == {"16"}
    assert record["streaming"]["state_bytes"].keys() == {"100"}
    assert record["training"]["ours-seed0"]["updates"] == 3
    assert record["recipe"] == "maze-debug" and {"command", "commit", "device"} <= set(record)
    hashes = {
        file_sha256(folder / "tokenizer" / "model.safetensors") for folder in (options.out / "runs").iterdir()
    }
    assert len(hashes) == 1  # one tokenizer for all
    assert len(list((options.out / "runs").iterdir())) == 2  # one run for both settings
    evaluation = json.loads((options.out / "evaluations" / "ours-seed0.json").read_text())
    assert record["training"]["ours-seed0"]["parameters"] == evaluation["parameters"] > 0
    assert evaluation["window_only_sha256"] is not None and not evaluation["window_only_sha256"].startswith(
        "x"
    )

    capsys.readouterr()
    again = compare(tiny_recipe(), replace(options, baselines=("window_only", "frame_scan")))
    printed = capsys.readouterr().out
    assert "window_only-seed0: trained before" in printed and "window_only-seed0: evaluated before" in printed
    assert "frame_scan-seed0: training" in printed and set(lists) | {"frame_scan"} == set(again["psnr"])
    assert again["psnr"]["ours"] == lists["ours"]
    provenance = again["evaluations"]["ours"][0]
    assert provenance["model_sha256"] == evaluation["model_sha256"] and provenance["device"].startswith("cpu")

    files = {name: tmp_path / f"{name}.json" for name in ("first", "second", "eventless")}
    for name, share in (("first", 0.25), ("second", 0.75)):
        record_of_events = {"events": {"accuracy": {"ours": {"16": [share, 0, 1]}}}}
        files[name].write_text(json.dumps(record_of_events))
    elsewhere = (files["first"], files["second"])
    of_others = replace(options, baselines=("window_only",), event_records=elsewhere)
    assert compare(tiny_recipe(), of_others)["event_accuracy"] == {"16": [0.25, 0.75]}
    told = CompareArgs(
        options.out,
        baselines="ours,window_only",
        device="cpu",
        episodes=2,
        tests=",".join(options.tests),
        memory=options.memory,
        experiment=tiny_recipe(),
        json=tmp_path / "short.json",
    )
    for train_only, record_path in ((False, str(options.out / "memory.json")), (True, None)):
        run_command(replace(told, train_only=train_only))
        short = json.loads(told.json.read_text())
        assert (short["out"], short["record"], short["seeds"]) == (str(options.out), record_path, [0])
        assert short["training"]["ours-seed0"]["updates"] == 3
        assert train_only or short["psnr_far"]["ours"] == again["psnr_far"]["ours"]
        assert {"command", "commit", "device", "versions"} <= set(short)
        assert capsys.readouterr().out.splitlines()[-1].startswith("Next: ")
    other_mazes = json.loads((options.out / "evaluations" / "frame_scan-seed0.json").read_text())
    (options.out / "evaluations" / "frame_scan-seed0.json").write_text(
        json.dumps({**other_mazes, "episodes": 3})
    )
    with pytest.raises(
        UserError, match="same mazes, but .* has 2 of seed 0, frame_scan-seed0 has 3 of seed 0"
    ):
        compare(tiny_recipe(), of_others)
    (options.out / "evaluations" / "frame_scan-seed0.json").unlink()
    files["eventless"].write_text("{}")
    with pytest.raises(UserError, match="eventless.json, which has no events"):
        compare(tiny_recipe(), replace(of_others, event_records=(files["eventless"],)))
    other = replace(tiny_recipe(), objective=ObjectiveConfig(full_noise_share=0.7))
    with pytest.raises(UserError, match="full_noise_share was 0.5 and is now 0.7"):
        compare(other, replace(options, baselines=("window_only",)))


def test_experiments_differ_in_what_is_compared_alone():
    recipe = tiny_recipe()
    ours, alone = experiment_for(recipe, "ours", 3), experiment_for(recipe, "actions_ours", 3)
    assert ours == replace(recipe, training=replace(recipe.training, seed=3)) and alone == ours
    assert run_folder(Path("x"), "actions_ours", 3) == run_folder(Path("x"), "ours", 3)
    rival = experiment_for(recipe, "window_only", 3)
    assert rival.model != ours.model and replace(rival, model=ours.model) == ours


def test_without_odometry_a_model_must_see_its_own_motion():
    recipe = tiny_recipe()
    blind = replace(recipe, model=replace(recipe.model, visual_odometry=False))
    assert experiment_for(blind, "ours", 0).model == blind.model
    with pytest.raises(UserError, match="`actions_ours` is evaluated without odometry"):
        experiment_for(blind, "actions_ours", 0)
    with pytest.raises(UserError, match="`visual_odometry`"):
        check_model(WorldModel(blind.model), "it", give_odometry=False)
    check_model(WorldModel(recipe.model), "it", give_odometry=False)
    with pytest.raises(UserError, match="`places_only` does not fit .* `place_features` of the base must be"):
        experiment_for(tiny_recipe(), "places_only", 0)


def test_what_cannot_be_compared_is_refused(tmp_path):
    recipe, options = tiny_recipe(), CompareOptions(out=tmp_path, baselines=("lstm",))
    with pytest.raises(UserError, match="`baselines` must be some of ours, .* got lstm"):
        compare(recipe, options)
    with pytest.raises(UserError, match="`ours` must be `ours` where the baseline of that name is compared"):
        compare(recipe, replace(options, baselines=("ours", "scan_only"), ours="scan_only"))
    timed = replace(recipe, training=replace(recipe.training, schedule="time", time_budget_seconds=5.0))
    with pytest.raises(UserError, match="pass --training.schedule updates, got time"):
        compare(timed, replace(options, baselines=("ours",)))


def record_of(psnr, gap, seed_accuracy):
    def conditions(value):
        intervals = [[value, value - 1, value + 1], None]
        return {"psnr": intervals, "ssim": intervals, "place": intervals}

    names = ("ours", "copy_last", "wrong_actions", "context_cut", "tokenizer")
    values = {name: conditions(psnr - i) for i, name in enumerate(names)}
    far = {name: {"psnr": metrics["psnr"][0]} for name, metrics in values.items()}
    return {
        "distances": [64, 96],
        "far_frames": 64,
        "parameters": 10,
        "retrieval": {
            "loop": {
                "conditions": values,
                "far": {"conditions": far, "gap_closed": [gap, 0.0, 1.0]},
                "unseen": {"conditions": {"ours": {"psnr": None}}},
            }
        },
        "events": {"accuracy": {"ours": {"32": [seed_accuracy, 0.0, 1.0]}}},
        "streaming": {
            "ours": {
                "frames": [100],
                "ms_per_frame": [2.0],
                "ms_per_imagined_frame": [3.0],
                "state_bytes": [7],
            }
        },
    }


def test_combining_by_hand():
    evaluations = {
        "ours_rotary": {0: record_of(30.0, 0.5, 0.9), 1: record_of(32.0, 0.75, 1.0)},
        "window_only": {0: record_of(20.0, None, 0.5)},
    }
    evaluations["window_only"][0]["retrieval"]["loop"]["far"]["gap_closed"] = None
    combined = combine(evaluations, "ours_rotary")
    assert combined["psnr"]["ours"] == [[30.0, None], [32.0, None]]
    assert combined["psnr"]["wrong_actions"] == [[28.0, None], [30.0, None]]
    assert combined["psnr"]["window_only"] == [[20.0, None]]
    assert combined["gap_closed_far"] == [0.5, 0.75] and combined["ceiling_db"] == 27.0
    assert combined["event_accuracy"] == {"32": [0.9, 1.0]}
    assert combined["streaming"]["state_bytes"] == {"100": 7}
    assert combined["by_baseline"]["window_only"]["gap_closed_far"] == [None]
    assert combined["training_seeds"] == {"ours_rotary": [0, 1], "window_only": [0]}
    assert combine({"window_only": evaluations["window_only"]}, "ours")["gap_closed_far"] is None


def test_the_combined_record_has_a_list_for_every_baseline_and_control():
    main = "ours window_only full_attention".split()
    others = "frame_scan frame_scan_large_state blocks_1x1 scan_only places_only".split()
    names = [*main, *others, *("actions_" + name for name in main)]
    evaluations = {name: {0: record_of(20.0 + i, i / 10, 0.5)} for i, name in enumerate(names)}
    combined = combine(evaluations, "ours")
    controls = ("copy_last", "wrong_actions", "context_cut")
    assert set(combined["psnr"]) == {*names, *controls, *("actions_" + name for name in controls)}
    scores = combined["by_baseline"]["window_only"]
    assert scores["far"]["loop"]["context_cut"] == {"psnr": [18.0]}
    assert scores["unseen"]["loop"] == {"ours": {"psnr": [None]}} and scores["drift"] == []
    for i, name in enumerate(names):
        assert combined["psnr"][name] == [[20.0 + i, None]]
        assert combined["by_baseline"][name]["gap_closed_far"] == [i / 10]
    assert combined["psnr"]["copy_last"] == [[19.0, None]]
    assert combined["gap_closed_far"] == [0.0] and combined["event_accuracy"] == {"32": [0.5]}
