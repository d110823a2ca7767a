"""`lssvwm play`: walk in the dream of a world model, in a browser."""

from __future__ import annotations

from dataclasses import dataclass

from lssvwm_agents.errors import UserError


@dataclass(frozen=True)
class PlayArgs:
    """Walk in what a world model imagines, with arrow keys or by touch, on a local web page.

    The model first watches somebody walk through a maze; from then on every frame is imagined. Ends with
    Ctrl+C.
    """

    model: str = "tiny"
    """A shipped model's name, a run's folder, or a Hugging Face id."""
    seed: int = 1 << 31
    """Names the first maze; those from 2147483648 on were in no training."""
    host: str = "127.0.0.1"
    """Address to listen on; with any that other machines can reach, the page's address holds a token."""
    port: int = 8765
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """Token of your own; by default none on this machine, a random one for others."""
    context_frames: int = 256
    """Real frames that the model watches before the dream."""
    guide: str = "wanderer"
    """The scripted policy that walks meanwhile: wanderer, explorer, forager, oracle or random."""
    num_denoising_steps: int = 1
    """Of every imagined frame: 1 imagines the mean of what may come, 8 or more sample it, more slowly."""
    device: str = "cpu"
    """cpu or cuda."""
    open: bool = False
    """Also open the page in this machine's browser."""


def run(args: PlayArgs) -> None:
    """Serve the page until Ctrl+C."""
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"`port` must be in [0, 65536), got {args.port}.")
    if args.token is not None and len(args.token) < 8:
        raise UserError(f"`token` must have at least 8 characters, got {len(args.token)}.")
    if not 0 <= args.seed < 1 << 32:
        raise UserError(f"`seed` must be in [0, 2^32), got {args.seed}.")
    from lssvwm_agents.evaluate.planner_options import claim_threads
    from lssvwm_agents.weights import load_model

    model = load_model(args.model, args.device)
    from lssvwm_agents.serve.dream import Dream
    from lssvwm_agents.serve.host import DreamHost
    from lssvwm_agents.serve.server import serve

    dream = Dream(model, args.context_frames, args.num_denoising_steps, args.guide)
    host = DreamHost(dream, num_threads=max(2, claim_threads()), first_seed=args.seed)

    def ready(address: str) -> None:
        print(f"Walk in the dream at {address}", flush=True)
        print("Ctrl+C ends it. Next: `lssvwm demo` lets the planner walk.", flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(address)

    try:
        serve(host, args.host, args.port, args.token, ready)
    except KeyboardInterrupt:  # the usual end
        print()
