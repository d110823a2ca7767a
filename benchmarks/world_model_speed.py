"""Training and imagination speed of a named size on this device.

    python benchmarks/world_model_speed.py --size tiny --device cuda --json FILE

Training: forward, backward and AdamW on random latents, bf16 autocast on CUDA. Imagination: `step` on forked
states under `inference_mode`. Frames per second, medians over updates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

from lssvwm_agents.worldmodel import ObjectiveConfig, WindowBatch, WorldModel, small, tiny, world_model_loss

SIZES = {"tiny": tiny, "small": small}


def random_batch(config, batch, length, device):
    shape = (batch, length)
    actions = torch.nn.functional.one_hot(
        torch.randint(0, config.action_dim, shape, device=device), config.action_dim
    )
    ones = torch.ones(shape, dtype=torch.bool, device=device)
    zeros = torch.zeros(shape, device=device)
    return WindowBatch(
        latents=torch.randn(*shape, *config.tokenizer.latent_shape, device=device),
        actions=actions.float(),
        action_known=ones,
        proprio=torch.randn(*shape, config.proprio_dim, device=device),
        proprio_known=ones,
        reward=zeros,
        continuation=zeros + 1,
        reward_mask=ones,
        value=zeros,
        value_mask=ones,
    )


def timed(function, device, repeats):
    times = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[len(times) // 3 :])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backends", default="chunked")
    parser.add_argument("--lengths", default="16,64,256")
    parser.add_argument("--frames", type=int, default=16384, help="frames per training batch")
    parser.add_argument("--rows", type=int, default=2048, help="rows imagined at once")
    parser.add_argument("--compile", action="store_true", help="torch.compile the loss")
    parser.add_argument("--profile", action="store_true", help="print the costliest operators of one update")
    parser.add_argument("--json")
    args = parser.parse_args()
    device, cuda = args.device, args.device == "cuda"
    torch.manual_seed(0)
    config = SIZES[args.size]()
    model = WorldModel(config).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    report = {
        "command": "python " + " ".join(sys.argv),
        "size": args.size,
        "parameters": parameters,
        "torch": torch.__version__,
    }
    report["device"] = torch.cuda.get_device_name() if cuda else "cpu"
    report["training"], report["imagination"] = [], []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=cuda)
    generator = torch.Generator(device).manual_seed(0)
    loss_function = torch.compile(world_model_loss) if args.compile else world_model_loss
    for backend in args.backends.split(","):
        model.set_scan_backend(backend)
        for length in map(int, args.lengths.split(",")):
            batch = random_batch(config, max(1, args.frames // length), length, device)

            def update(batch=batch):
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
                    loss, _ = loss_function(model, batch, generator, ObjectiveConfig())
                loss.backward()
                optimizer.step()

            start = time.perf_counter()
            update()
            first = time.perf_counter() - start
            seconds = timed(update, device, 12 if cuda else 3)
            frames = batch.reward.numel()
            row = {
                "backend": backend,
                "length": length,
                "frames": frames,
                "frames_per_second": frames / seconds,
                "first_s": first,
            }
            report["training"].append(row)
            print(
                f"train {backend} T={length}: {frames / seconds:,.0f} frames/s "
                f"({1e3 * seconds:.1f} ms, first {first:.1f} s)",
                flush=True,
            )
            if args.profile:
                kinds = [torch.profiler.ProfilerActivity.CPU] + (
                    [torch.profiler.ProfilerActivity.CUDA] if cuda else []
                )
                with torch.profiler.profile(activities=kinds) as profiler:
                    update()
                order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
                print(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))
    model.set_scan_backend("chunked").eval()
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=cuda):
        state = model.repeat(model.initial_state(8), max(1, args.rows // 8))
        rows = state.batch_size
        action = torch.zeros(rows, config.action_dim, device=device)
        action[:, 1] = 1.0
        seconds = timed(lambda: model.step(state, action), device, 12)
        report["imagination"].append(
            {"rows": rows, "frames_per_second": rows / seconds, "state_bytes_per_row": state.nbytes // rows}
        )
        print(
            f"imagine {rows} rows: {rows / seconds:,.0f} frames/s, "
            f"{state.nbytes // rows:,} bytes of state a row",
            flush=True,
        )
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
