"""Fixtures that several tests of the scripts share."""

import pytest

from tests.support.deploy.project import IMAGES, Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `up.sh staging` ran through. It is only looked at."""
    project = Project(tmp_path_factory.mktemp("finished"))
    project.done("up.sh", "staging", "--image", IMAGES[0], DEEPGRAM_API_KEY="a-secret-key")
    return project
