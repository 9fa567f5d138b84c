"""SweepFolder: where a sweep keeps what it is made of, what it has found, and what it is about.

sweep.json         what the sweep is: continuing with anything else is refused
material/          the corpus, the vocabulary and the questions of all trainings (`material.py`)
arms/ARM.toml      the settings of each arm, as `engram train --config` reads them
step_time.json     how long a step of the first arm takes beside one without memory, where an arm asks for that
runs/ARM/seed-N/   a run, while it is trained
runs/ARM/seed-N.json   its result
report.json, report.png   the report
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hashing.base.atomic import write_text
from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject, read_json
from runtime.settings import Settings
from runtime.settings_file import to_toml
from runtime.sweep.arm import Arm
from runtime.sweep.material import Material
from runtime.train.choice import chosen_settings

FORMAT = 1
MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class SweepFolder:
    folder: Path

    @property
    def _journal(self) -> Path:
        return self.folder / "sweep.json"

    def begin(self, name: str, arms: Sequence[Arm], about: Mapping[str, Any], keeps_runs: bool) -> None:
        """Says what the sweep is. Raises EngramError where the folder holds another one.

        `about` is what else its results depend on: where its corpus and its other domain come from.
        """
        content = {
            "format": FORMAT,
            "name": name,
            "keeps_runs": keeps_runs,
            "about": dict(about),
            "arms": {one.name: {"rule": one.rule, "settings": asdict(one.settings)} for one in arms},
        }
        content = json.loads(json.dumps(content))  # as it comes back
        if self._journal.exists():
            self._check_same(content)
        else:
            write_text(self._journal, json.dumps(content, indent=1, sort_keys=True))

    def _check_same(self, content: Mapping[str, Any]) -> None:
        found = self._read().members
        for key in ("name", "arms", "about"):
            if found.get(key) != content[key]:
                what = {"name": f"the sweep {found.get('name')}", "arms": "a sweep of other settings"}
                raise EngramError(
                    f"{self.folder} holds {what.get(key, 'a sweep of another corpus or domain')}",
                    hint="go on with it by the command that began it, or name another place with --out",
                )

    def _read(self) -> JsonObject:
        content = read_json(self._journal, MAX_BYTES)
        content.integer("format", FORMAT, FORMAT)
        return content

    @property
    def keeps_runs(self) -> bool:
        return bool(self._read().members["keeps_runs"])

    def rule(self, arm: str) -> str:
        """Of the arm's vocabulary."""
        return self._read().child("arms").child(arm).text("rule")

    @property
    def material(self) -> Material:
        return Material(self.folder / "material")

    def write_settings(self, arm: str, settings: Settings) -> None:
        self.toml(arm).parent.mkdir(parents=True, exist_ok=True)
        write_text(self.toml(arm), to_toml(settings))

    def toml(self, arm: str) -> Path:
        return self.folder / "arms" / f"{arm}.toml"

    @property
    def step_time_path(self) -> Path:
        return self.folder / "step_time.json"

    def settings(self, arm: str) -> Settings:
        return chosen_settings(config=self.toml(arm))

    def run_folder(self, arm: str, seed: int) -> Path:
        return self.folder / "runs" / arm / f"seed-{seed}"

    def result(self, arm: str, seed: int) -> dict[str, Any] | None:
        """None until the job is done."""
        path = self.run_folder(arm, seed).with_suffix(".json")
        return dict(read_json(path, MAX_BYTES).members) if path.exists() else None

    def write_result(self, arm: str, seed: int, found: Mapping[str, Any]) -> None:
        write_text(self.run_folder(arm, seed).with_suffix(".json"), json.dumps(found, indent=1, sort_keys=True))
