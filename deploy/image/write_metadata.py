"""Write the package's metadata beside its code, as `pip install` would, but without a build system: name and version.

write_metadata.py PYPROJECT FOLDER
"""

import sys
import tomllib
from pathlib import Path

pyproject, folder = map(Path, sys.argv[1:])
project = tomllib.loads(pyproject.read_text())["project"]
target = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
target.mkdir()
(target / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
