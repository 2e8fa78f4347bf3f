"""Arguments, as every script of deploy reads them."""

import subprocess

import pytest

from tests.support.deploy.scripts import DEPLOY, ROOT

SCRIPT = """
usage() { echo "usage ${1:-0}"; exit "${1:-0}"; }
die() { echo "error: $*"; exit 1; }
source deploy/arguments.sh
DRY_RUN=''
arguments_of 2 --dry-run --image= --list -- "$@"
echo "${WORDS[*]} image=${GIVEN[image]:-} list=${GIVEN[list]:-} dry=$DRY_RUN"
"""


def read(*arguments: str) -> str:
    command = ["bash", "-euc", SCRIPT, "-", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("staging",), "staging image= list= dry="),
        (("staging", "--image", "a@b"), "staging image=a@b list= dry="),
        (("--image=a=b", "staging", "--dry-run"), "staging image=a=b list= dry=1"),
        (("staging", "revision-3", "--list"), "staging revision-3 image= list=1 dry="),
        (("staging", "--image="), "staging image= list= dry="),
    ],
)
def test_options_may_come_anywhere_and_take_their_value_either_way(arguments: tuple[str, ...], expected: str) -> None:
    assert read(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ((), "usage 2"),
        (("staging", "--imag", "a"), "usage 2"),
        (("staging", "--list=yes"), "usage 2"),
        (("staging", "-n"), "usage 2"),
        (("staging", "a", "b"), "usage 2"),
        (("staging", "--help", "--nonsense"), "usage 0"),
        (("-h",), "usage 0"),
        (("staging", "--image"), "error: --image takes a value: --image=..."),
        (("staging", "--image", ""), "error: --image takes a value: --image=..."),
    ],
)
def test_what_cannot_be_meant_ends_the_script(arguments: tuple[str, ...], answer: str) -> None:
    assert read(*arguments) == answer


def test_no_script_of_an_environment_reads_its_arguments_itself() -> None:
    own = {script.name for script in DEPLOY.glob("*.sh") if "while (($#)); do\n        case" in script.read_text()}

    assert own == set()
