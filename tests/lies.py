"""Lies: changes to a checkpoint's folder after which its parts do not agree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lie = Callable[[Path], None]


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes what a JSON file holds."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_config(**keys: Any) -> Lie:
    """Sets keys of the model's configuration."""
    return lambda folder: change_json(folder / "config.json", lambda content: content["text_config"].update(keys))


def change_bytes(path: Path, offset: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
