"""A dbt project whose sources are looked at step by step, in a process of its own. Needs nothing of pytest."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from dbt.cli.main import dbtRunner

from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.warehouse import SourceProber, WarehouseSession


class WatchedProject:
    """What one warm prober, or a fresh one, says of a project's sources after each step."""

    def __init__(self, folder: Path, target: str):
        arguments = ["--project-dir", str(folder), "--profiles-dir", str(folder), "--target", target]
        result = dbtRunner().invoke(["--quiet", "parse", *arguments])
        if not result.success:
            raise result.exception
        manifest = json.loads((folder / "target" / "manifest.json").read_text())
        self.session = WarehouseSession.open(project_dir=folder, profiles_dir=folder, manifest=manifest, target=target)
        self.sources = list(build_graph(manifest).sources.values())
        self.prober = SourceProber(self.session)
        self.seen = {}

    def look(self, step: str, *, freshly: bool = False) -> None:
        prober = SourceProber(self.session) if freshly else self.prober
        labels = {source.unique_id: source.label for source in self.sources}
        self.seen[step] = {labels[uid]: asdict(answer) for uid, answer in prober.observe(self.sources)}

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(self.seen, default=str))
