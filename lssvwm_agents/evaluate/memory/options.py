"""The numbers of the memory benchmark."""

from __future__ import annotations

from dataclasses import dataclass

TESTS = ("retrieval", "reasoning", "events", "drift", "streaming")


@dataclass(frozen=True)
class MemoryOptions:
    """How large the benchmark is; the defaults are those of results of record."""

    context: int = 256
    """Real frames given."""
    horizon: int = 128
    """Frames imagined after them."""
    periods: tuple[int, ...] = (24, 48, 64, 96, 128, 192, 256)
    """Moves of the loops of the retrieval test; even, from a full turn (24) to the context."""
    delays: tuple[int, ...] = (32, 64, 128, 256)
    """Frames from the start of the cue corridor to its junction."""
    drift_frames: int = 1000
    """Imagined frames of the drift test."""
    drift_episodes: int = 8
    """Mazes of the drift test, at most."""
    longest_stream: int = 100_000
    """Frames of the longest stream; 100, 1,000, 10,000 and 100,000 up to this are timed."""
    odometry: bool = True
    """Give the odometry to models that take it; without, one with visual odometry sees its own motion."""
    ssim_stride: int = 4
    """SSIM is computed for every so-manyth imagined frame."""
    strips: int = 2
    """Film strips of each path."""

    def __post_init__(self) -> None:
        for name in ("context", "horizon", "drift_frames", "drift_episodes", "ssim_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.horizon > self.context:
            raise ValueError(
                f"`horizon` must be at most the context's {self.context} frames, got {self.horizon}."
            )
        if not self.periods or not self.delays:
            raise ValueError(
                f"`periods` and `delays` must not be empty, got {self.periods} and {self.delays}."
            )
        if self.longest_stream < 100:
            raise ValueError(f"`longest_stream` must be at least 100 frames, got {self.longest_stream}.")


def parse_tests(names: str) -> tuple[str, ...]:
    """Names of tests, separated by commas.

    Raises:
        ValueError: If a name is unknown or there is none.
    """
    chosen = tuple(name.strip() for name in names.split(",") if name.strip())
    unknown = [name for name in chosen if name not in TESTS]
    if unknown or not chosen:
        raise ValueError(f"`tests` must be some of {','.join(TESTS)}, got {names!r}.")
    return chosen
