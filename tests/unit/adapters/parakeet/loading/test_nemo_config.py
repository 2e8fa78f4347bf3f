import os

import pytest

from worker.adapters.parakeet.loading import BadModelFile
from worker.adapters.parakeet.loading.nemo_file import read_config


def test_references_are_replaced_by_what_they_name() -> None:
    text = b"""
model_defaults: {hidden: 640, sizes: [1, 2]}
decoder: {hidden: '${model_defaults.hidden}', second: '${model_defaults.sizes.1}'}
joint: {as_decoder: '${decoder}'}
"""

    config = read_config(text)

    assert config["decoder"] == {"hidden": 640, "second": 2}
    assert config["joint"] == {"as_decoder": {"hidden": 640, "second": 2}}


def test_no_resolver_runs_and_no_environment_is_read() -> None:
    text = b"path: '${oc.env:HOME}'\nname: 'a-${path}'\n"

    config = read_config(text)

    assert config == {"path": "${oc.env:HOME}", "name": "a-${path}"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a: '${b}'\nb: '${a}'\n", "circular"),
        (b"a: {b: '${a}'}\n", "circular"),
        (b"a: '${c.d}'\n", r"refers to \$\{c.d\}"),
        (b"\n".join([b"a0: x"] + [b"a%d: ['${a%d}', '${a%d}']" % (n, n - 1, n - 1) for n in range(1, 40)]), "multiply"),
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"a: &x {b: 1}\nc: {<<: *x}\n", "aliases"),
        (b"a: " + b"[" * 100_000, "nested more than"),
        (b"- " * 1_000 + b"x", "nested more than"),
        (b"a: [1", "no YAML"),
        (b"a: \xff\xfe\n", "no YAML"),
        (b"a: !!python/object/apply:os.system ['touch /tmp/klipstream-executed']\n", "no YAML"),
        (b"- 1\n", "no mapping"),
        (b"", "no mapping"),
    ],
    ids=[
        "a circle", "a value within itself", "a reference to nothing", "references that double", "an alias", "a merge",
        "a deep flow", "a deep block", "cut short", "no UTF-8", "a Python object", "a list", "empty",
    ],
)  # fmt: skip
def test_a_configuration_that_is_damaged_or_hostile_is_refused_with_the_reason(text: bytes, reason: str) -> None:
    with pytest.raises(BadModelFile, match=reason):
        read_config(text)

    assert not os.path.exists("/tmp/klipstream-executed")  # noqa: PTH110, S108
