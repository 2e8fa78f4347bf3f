"""Random fates of calls on their way to a server, and a tally of them."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Fate(StrEnum):
    """`refused`: never reaches the server. `reply_lost`: carried out, but without a reply. `cut`: half a reply.

    `stalled`: no answer at all, until the caller gives up.
    """

    WELL = "well"
    REFUSED = "refused"
    REPLY_LOST = "reply lost"
    CUT = "cut"
    STALLED = "stalled"


@dataclass(frozen=True, kw_only=True)
class Odds:
    """Chances of one call; the rest goes well."""

    refused: float = 0.0
    reply_lost: float = 0.0
    cut: float = 0.0
    stalled: float = 0.0
    late: float = 0.0
    """Share of calls of any fate that take up to `late_seconds` longer."""
    late_seconds: float = 0.5


# Of Pub/Sub's and Cloud Storage's calls 5 % fail or lose their reply, as issue 3 asks; 3 % are late.
HARD_TIMES = Odds(refused=0.025, reply_lost=0.025, late=0.03)
GOOD_TIMES = Odds()


@dataclass(kw_only=True)
class Dice:
    """`odds` by method; every other method has `otherwise`. Both may be changed while calls are made."""

    rng: random.Random
    odds: Mapping[str, Odds] = field(default_factory=dict)
    otherwise: Odds = GOOD_TIMES
    tally: Counter[tuple[str, Fate]] = field(default_factory=Counter)

    def fate(self, method: str) -> Fate:
        """Throw for one call, and count it."""
        odds, thrown = self.odds.get(method, self.otherwise), self.rng.random()
        chances = {Fate.REFUSED: odds.refused, Fate.REPLY_LOST: odds.reply_lost, Fate.CUT: odds.cut}
        fate = Fate.WELL
        for candidate, chance in (*chances.items(), (Fate.STALLED, odds.stalled)):
            if thrown < chance:
                fate = candidate
                break
            thrown -= chance
        self.tally[method, fate] += 1
        return fate

    def delay_seconds(self, method: str) -> float:
        """Return the delay of the call in seconds."""
        odds = self.odds.get(method, self.otherwise)
        return self.rng.uniform(0, odds.late_seconds) if self.rng.random() < odds.late else 0.0

    def count(self, method: str, fate: Fate | None = None) -> int:
        """Calls of that method so far, of that fate or of any."""
        return sum(number for (name, met), number in self.tally.items() if name == method and fate in (None, met))
