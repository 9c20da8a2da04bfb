"""JSON Schemas of the YAML files, for editors: ``python -m orchestrator.matrix.schema --write``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.matrix.device_class import DeviceClass
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.policy import Policy

FOLDER = Path(__file__).parents[2] / "matrices" / "schema"
MODELS: dict[str, type[BaseModel]] = {
    "matrix": Matrix,
    "inventory": Inventory,
    "device-class": DeviceClass,
    "policy": Policy,
}


def schema(name: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one of `MODELS`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **MODELS[name].model_json_schema(),
    }


def text(name: str) -> str:
    """The file's content, byte for byte."""
    return json.dumps(schema(name), indent=2, sort_keys=True) + "\n"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.matrix.schema")
    parser.add_argument("--write", action="store_true", help="write the files instead of checking")
    write = parser.parse_args(argv).write
    stale = []
    for name in MODELS:
        path = FOLDER / f"{name}.json"
        if write:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text(name))
        elif not path.is_file() or path.read_text() != text(name):
            stale.append(path.name)
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run with --write\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
