"""Put the packages of this folder on the path, as an installation would."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "masked_image"))
