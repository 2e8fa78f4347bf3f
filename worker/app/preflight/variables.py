"""Variables of the environment that look like settings and are none."""

from collections.abc import Iterator, Mapping

from worker.app.preflight.finding import Finding


def variable_findings(look_alikes: Mapping[str, str]) -> Iterator[Finding]:
    """Yield an advice for each variable that is ignored but resembles a setting, which the mapping names."""
    for name, setting in look_alikes.items():
        detail = f"no setting has this name, so it is ignored; did you mean {setting}?"
        yield Finding(name=name, ok=True, advice=True, detail=detail)
