"""The examples of docs/guides/coral.md, jetson.md and android.md are entries that are taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.matrix import yamlfile
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.loader import load_inventories
from orchestrator.matrix.model import ModelSpec, RuntimeConfig

GUIDES = Path(__file__).parents[3] / "docs" / "guides"


def examples(guide: str) -> list[Any]:
    text = (GUIDES / guide).read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("guide", ["coral.md", "jetson.md"])
def test_the_examples_are_taken(guide: str, tmp_path: Path) -> None:
    entries, matrix = examples(guide)
    path = tmp_path / "inventory.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "devices": entries}))
    (device,) = yamlfile.load(path, Inventory).devices
    runtimes = [RuntimeConfig.model_validate(r) for r in matrix["runtimes"]]
    for runtime in runtimes:
        assert runtime.delegate is None or runtime.delegate in device.delegates
    for model in matrix.get("models", []):
        ModelSpec.model_validate(model, strict=False)


def test_the_phone_of_the_guide_can_be_used_as_it_is_listed(tmp_path: Path) -> None:
    (entries,) = examples("android.md")
    path = tmp_path / "inventory.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "devices": entries}, allow_unicode=True))
    (device,) = load_inventories((path,)).devices
    assert device.interpreter("litert") == "bundle:aarch64-litert"
    assert device.profile is not None
    assert device.profile.name == "android-arm64"


def test_the_chain_is_as_the_guide_says() -> None:
    first = RuntimeConfig.model_validate(examples("jetson.md")[1]["runtimes"][0])
    assert first.provider == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert first.provider_options == {"TensorrtExecutionProvider": {"trt_fp16_enable": "False"}}
