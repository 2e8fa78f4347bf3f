"""The `model_config.yaml` of a `.nemo` file, with its `${...}` references resolved."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from worker.adapters.parakeet.loading import BadModelFile

MOST_BYTES = 16 * 2**20
"""A vocabulary of 8,192 pieces, written twice, takes 0.3 MB."""

_MOST_DEPTH = 64
_MOST_VALUES = 1_000_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PARSER: Any = getattr(yaml, "CLoader", yaml.Loader)  # of events only: no object is made
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def read_config(text: bytes) -> Mapping[str, object]:
    """Parse the configuration and replace every value that is one reference, like `${model_defaults.enc_hidden}`.

    Other interpolations stay the text that they are: no resolver runs and no environment is read. Raises
    `BadModelFile` where the text is no YAML mapping, refers to what is not there or to itself, or would grow without
    bound.
    """
    if len(text) > MOST_BYTES:
        raise BadModelFile(f"model_config.yaml has {len(text):,} bytes; at most {MOST_BYTES:,} are read")
    try:
        _require_plain(text)
        config = yaml.load(text, _LOADER)  # noqa: S506  # it is the safe loader
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        raise BadModelFile(f"model_config.yaml is no YAML: {_first_line(error)}") from error
    if not isinstance(config, Mapping):
        raise BadModelFile("model_config.yaml holds no mapping")
    return _References(config).resolved()


def _require_plain(text: bytes) -> None:
    """Refuse aliases and deep nesting before objects are made: the C parser overflows its stack on 100,000 levels."""
    depth = 0
    for event in yaml.parse(text, _PARSER):
        if isinstance(event, yaml.AliasEvent):
            raise BadModelFile("model_config.yaml uses YAML aliases, which NeMo does not write")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MOST_DEPTH:
            raise BadModelFile(f"model_config.yaml is nested more than {_MOST_DEPTH} levels deep")


class _References:
    """Resolves one configuration; a bound on values and depth ends circles and explosions."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config, self._values = config, 0

    def resolved(self) -> Mapping[str, object]:
        return {str(name): self._resolve(value, 1) for name, value in self._config.items()}

    def _resolve(self, value: object, depth: int) -> object:
        self._values += 1
        if depth > _MOST_DEPTH or self._values > _MOST_VALUES:
            raise BadModelFile("the references of model_config.yaml are circular or multiply without bound")
        if isinstance(value, dict):
            return {name: self._resolve(one, depth + 1) for name, one in value.items()}
        if isinstance(value, list):
            return [self._resolve(one, depth + 1) for one in value]
        reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        return self._resolve(self._at(reference[1]), depth + 1) if reference else value

    def _at(self, path: str) -> object:
        value: Any = self._config
        for name in path.split("."):
            try:
                value = value[int(name)] if isinstance(value, list) else value[name]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise BadModelFile(f"model_config.yaml refers to ${{{path}}}, which it does not hold") from error
        return value


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
