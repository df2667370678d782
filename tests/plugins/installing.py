"""An installation of a package folder without a package manager, for tests of entry points."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path


def install(package: Path, site: Path) -> list[str]:
    """Write to `site` what an installer would record of a package folder; returns what belongs on PYTHONPATH."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    groups: Mapping[str, Mapping[str, str]] = project["entry-points"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return [str(package), str(site)]
