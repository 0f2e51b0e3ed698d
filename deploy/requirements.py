"""Print what the project in this folder requires: `requirements.py [EXTRA…]`."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = (project["optional-dependencies"][extra] for extra in sys.argv[1:])
print(*project["dependencies"], *(line for extra in extras for line in extra), sep="\n")
