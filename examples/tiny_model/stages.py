"""Stages of the training: the data of each stage and its duration. Each stage continues from the previous one.

The minutes are those of two cores. A comment beside each stage names the fault that it cured.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of the trainer; the learning rate rises over `warmup_steps` and falls to nothing over `minutes`."""

    name: str
    minutes: float
    learning_rate: float
    warmup_steps: int = 30
    ctc_weight: float = 0.3
    """Weight of the auxiliary CTC loss, whose head is dropped in the end."""
    ctc_only: float = 0.0
    """First share of the time spent on short clean clips by CTC alone."""
    aligned: bool = True
    """Words may be emitted only where espeak-ng says they are spoken."""
    joined: float = 0.1
    """Share of the examples that are several clips in a row."""
    most_joined: int = 3
    longest_pause_seconds: float = 0.8
    level_range_db: float = 0.0
    """Clips of one example differ in level by as much."""
    silent: float = 0.0
    """Share of the examples with nothing but silence or noise."""
    longest_silence_seconds: float = 8.0
    narrow_band: float = 0.0
    """Share of the clips taken from the 8 kHz MP3 twin of the corpus."""


STAGES = (
    # From nothing. Without the CTC-only beginning the transducer learns to emit blanks and no more.
    Stage(name="hear", minutes=40, learning_rate=2e-3, warmup_steps=150, ctc_weight=0.4, ctc_only=0.22, aligned=False),
    # Full attention lets a transducer emit words early: starts came 0.23 s before the truth.
    Stage(name="align", minutes=4, learning_rate=7e-4),
    # Silence and noise used to give words.
    Stage(name="hush", minutes=8.5, learning_rate=6e-4, warmup_steps=15, silent=0.05),
    # The pipeline's audio cost 11 points of word error rate.
    Stage(name="narrow", minutes=18, learning_rate=7e-4, joined=0.15, silent=0.04, narrow_band=0.45),
    # Windows of 20-30 s with several voices cost two points more than single utterances.
    Stage(
        name="long",
        minutes=12,
        learning_rate=5e-4,
        ctc_weight=0.0,
        joined=0.6,
        most_joined=8,
        longest_pause_seconds=2.5,
        level_range_db=8,
        silent=0.05,
        longest_silence_seconds=30,
        narrow_band=0.45,
    ),
)
