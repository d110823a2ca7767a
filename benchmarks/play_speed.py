"""How many frames a second the play page gets: one client asks for a move as soon as the last was answered.

    python benchmarks/play_speed.py --json benchmarks/results/play_speed.json

Everything is measured from outside, through the WebSocket of `lssvwm play` with its defaults: the imagined
frame, the memory meter, and with `real` the real maze beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from lssvwm_agents.files import write_json
from lssvwm_agents.report import model_sha256, run_info


def ask(socket: Any, message: dict[str, Any], kind: str) -> dict[str, Any]:
    socket.send(json.dumps(message))
    while True:
        answer = json.loads(socket.recv())
        if answer["type"] == kind:
            return answer


def measure(url: str, real: bool, moves: int) -> float:
    with connect(url) as socket:
        ask(socket, {"type": "hello"}, "scene")
        ask(socket, {"type": "real", "show": real}, "moment")
        for move in range(20):
            ask(socket, {"type": "move", "move": move % 6}, "moment")
        began = time.perf_counter()
        for move in range(moves):
            ask(socket, {"type": "move", "move": 1 + move // 6 % 3}, "moment")
        return moves / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--moves", type=int, default=300)
    args = parser.parse_args()
    command = [sys.executable, "-m", "lssvwm_agents.cli", "play", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1].replace("http", "ws") + "walk"
        try:
            result = {
                "frames_per_second": measure(url, False, args.moves),
                "frames_per_second_with_real": measure(url, True, args.moves),
                "moves": args.moves,
                "model": "tiny",
                "model_sha256": model_sha256("tiny"),
                **run_info("cpu"),
            }
        finally:
            server.kill()
    for name in ("frames_per_second", "frames_per_second_with_real"):
        print(f"{name:<30}{result[name]:.1f}")
    if args.json is not None:
        write_json(args.json, result)
        print(f"Written to {args.json}.")


if __name__ == "__main__":
    main()
