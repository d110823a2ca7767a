"""Imagined frames a second on CUDA: forks of a few contexts, 16 frames each, eager and as a CUDA graph.

python benchmarks/imagination_speed.py --model tiny --json FILE
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
import torch.nn.functional as F

from lssvwm_agents.files import write_json
from lssvwm_agents.weights import load_model

CONTEXT, HORIZON, FORKS = 64, 16, 256


def seconds(run, repeats: int = 5) -> float:
    run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def graphed(run):
    """The same work as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


@torch.inference_mode()
def measure(model, rows: int, bfloat16: bool, graph: bool) -> float:
    config, device = model.config, model.device
    episodes = rows // FORKS

    def actions(*shape: int) -> torch.Tensor:
        return F.one_hot(torch.randint(config.action_dim, shape, device=device), config.action_dim).float()

    with torch.autocast("cuda", torch.bfloat16, enabled=bfloat16):
        latents = torch.randn(episodes, CONTEXT, *config.tokenizer.latent_shape, device=device)
        proprio = torch.randn(episodes, CONTEXT, config.proprio_dim, device=device)
        state, _ = model.observe_latents(
            model.initial_state(episodes),
            latents,
            actions(episodes, CONTEXT),
            proprio if config.proprio_dim else None,
        )
        forks, taken = model.repeat(state, FORKS), actions(HORIZON, episodes * FORKS)

        def imagine() -> None:
            future = forks
            for t in range(HORIZON):
                future, _ = model.step(future, taken[t])

        return HORIZON * episodes * FORKS / seconds(graphed(imagine) if graph else imagine)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--json")
    args = parser.parse_args()
    if any(rows % FORKS for rows in args.rows):
        parser.error(f"--rows must be multiples of {FORKS}, got {args.rows}")
    model = load_model(args.model, "cuda")
    report = {
        "command": "python " + " ".join(sys.argv),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "frames_per_second": {},
    }
    for rows in args.rows:
        for name, bfloat16, graph in (("eager", False, False), ("bf16", True, False), ("graph", True, True)):
            speed = measure(model, rows, bfloat16, graph)
            report["frames_per_second"][f"{rows}/{name}"] = speed
            print(f"{rows} rows, {name}: {speed:,.0f} imagined frames/s", flush=True)
    if args.json:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
