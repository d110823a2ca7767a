"""Agreement and speed of the scan backends on this device.

    python benchmarks/scan_backends.py --json benchmarks/results/scan_backends.json

Every backend is compared with the sequential reference in float64 (outputs, reads, final state and the
gradients of all inputs; relative error in the Euclidean norm) on random inputs, then timed on the shapes that
block scans make.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

from lssvwm_agents.worldmodel.scan import Writes, scan
from lssvwm_agents.worldmodel.scan_mamba import mamba_is_available

AGREEMENT_SHAPES = [  # rows, frames, tokens per frame, heads, head_dim, groups, state_dim, with reads
    (3, 37, 1, 2, 32, 1, 64, True),
    (2, 19, 4, 4, 64, 4, 64, True),
    (2, 50, 16, 4, 64, 4, 64, False),
]
SPEED_SHAPES = [  # rows, tokens: 65,536 tokens x 4 heads x 64, state 64
    (16, 4096),
    (64, 1024),
    (256, 256),
]


def make_inputs(rows, frames, per_frame, heads, head_dim, groups, state_dim, reads, device, dtype):
    length = frames * per_frame
    generator = torch.Generator(device).manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float64).to(dtype)

    return {
        "x": normal(rows, length, heads, head_dim),
        "dt": torch.nn.functional.softplus(normal(rows, length, heads) - 1.0),
        "b": normal(rows, length, groups, state_dim) / state_dim**0.5,
        "c": normal(rows, length, groups, state_dim),
        "a": -torch.exp(normal(heads) - 1.0),
        "state": normal(rows, heads, head_dim, state_dim),
        "c_read": normal(rows, length, groups, state_dim) if reads else None,
    }


def run(inputs, per_frame, backend, gradients=True):
    leaves = {
        k: None if v is None else v.detach().clone().requires_grad_(gradients) for k, v in inputs.items()
    }
    out = scan(
        Writes(leaves["x"], leaves["dt"], leaves["b"], leaves["c"]),
        leaves["a"],
        leaves["state"],
        c_read=leaves["c_read"],
        tokens_per_frame=per_frame,
        backend=backend,
    )
    results = {"y": out.y, "state": out.state, **({} if out.y_read is None else {"y_read": out.y_read})}
    if gradients:
        weights = {
            k: torch.cos(torch.arange(v.numel(), device=v.device).reshape(v.shape)).to(v)
            for k, v in results.items()
        }
        sum((weights[k] * v).sum() for k, v in results.items()).backward()
        results |= {f"grad_{k}": v.grad for k, v in leaves.items() if v is not None}
    return {k: v.detach().double() for k, v in results.items()}


def agreement(device, backends):
    rows = []
    for shape in AGREEMENT_SHAPES:
        exact = make_inputs(*shape, device, torch.float64)
        for dtype in (torch.float32, torch.bfloat16) if device != "cpu" else (torch.float32,):
            rounded = {
                k: v if v is None else v.to(dtype if k not in ("dt", "a", "state") else torch.float32)
                for k, v in exact.items()
            }
            reference = run(
                {k: v if v is None else v.double() for k, v in rounded.items()}, shape[2], "reference"
            )
            for backend in backends:
                result = run(rounded, shape[2], backend)
                errors = {k: float((result[k] - v).norm() / v.norm()) for k, v in reference.items()}
                worst = max(errors, key=errors.get)
                rows.append({"backend": backend, "shape": list(shape), "dtype": str(dtype), "errors": errors})
                print(f"{backend:8s} {dtype!s:15s} {shape}  worst {worst} {errors[worst]:.2e}", flush=True)
    return rows


def median_ms(function, device, repeats=20):
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def speed(device, backends, scale):
    rows = []
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    for batch, length in SPEED_SHAPES:
        inputs = make_inputs(batch // scale or 1, length, 1, 4, 64, 4, 64, False, device, dtype)
        inputs |= {k: inputs[k].float() for k in ("dt", "a", "state")}
        for backend in backends:
            with torch.no_grad():
                forward = median_ms(lambda b=backend, i=inputs: run(i, 1, b, gradients=False), device)
            both = median_ms(lambda b=backend, i=inputs: run(i, 1, b), device)
            rows.append(
                {
                    "backend": backend,
                    "rows": batch // scale or 1,
                    "length": length,
                    "forward_ms": forward,
                    "both_ms": both,
                }
            )
            print(
                f"{backend:8s} {batch // scale or 1} x {length}: "
                f"forward {forward:.2f} ms, with backward {both:.2f} ms",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-speed", action="store_true", help="check agreement alone")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    backends = ["chunked"] + (["mamba"] if args.device == "cuda" and mamba_is_available() else [])
    report = {
        "command": "python " + " ".join(sys.argv),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "agreement": agreement(args.device, backends),
        "speed": [] if args.no_speed else speed(args.device, backends, 1 if args.device == "cuda" else 16),
    }
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
