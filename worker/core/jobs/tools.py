"""The rules and the tools that all jobs of a worker share."""

from dataclasses import dataclass, field

from worker.core.costs.bill import Prices
from worker.core.costs.budget import PaidRecogniser
from worker.core.jobs.audio_input import AudioIntake
from worker.core.jobs.board import Board
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.obstacles import Resources
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.routing import RoutingPolicy
from worker.core.jobs.state import JobStates
from worker.ports import AudioDecoder, Clock, Topic, WindowRecogniser


@dataclass(frozen=True, kw_only=True)
class JobRules:
    """The settings that concern every job."""

    worker: str
    revision: str = ""
    subscription: str
    routing: RoutingPolicy
    prices: Prices
    chunk_seconds: float
    chunks_in_flight: int
    max_crashes: int
    progress_events: bool = False
    log_costs: bool = True


@dataclass(frozen=True, kw_only=True)
class JobTools:
    """The services that every job works with; owned by the app."""

    states: JobStates
    intake: AudioIntake
    output: OutputWriter
    decoder: AudioDecoder
    recogniser: WindowRecogniser
    paid: PaidRecogniser | None
    resources: Resources
    health: EngineTrust
    completions: Topic
    dead_letters: Topic
    clock: Clock
    board: Board = field(default_factory=Board)
