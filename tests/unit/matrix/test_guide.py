"""The examples of docs/guides/matrix-file.md are files that work."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.matrix import yamlfile
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.loader import load_matrix
from orchestrator.matrix.plan import expand

ROOT = Path(__file__).parents[3]


def test_the_examples_load(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "guides" / "matrix-file.md").read_text()
    matrix_text, inventory_text = re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL)
    for folder in ("inventories", "policies", "quickstart"):
        (tmp_path / folder).symlink_to(ROOT / "matrices" / folder)
    (tmp_path / "m.yaml").write_text(matrix_text)
    (tmp_path / "i.yaml").write_text(inventory_text)
    loaded = load_matrix(tmp_path / "m.yaml")
    ids = {c.id for c in expand(loaded.matrix, loaded.inventory).cells}
    assert "host-digits.u8s8-digits32-clean-ort" in ids
    assert len(ids) == 5 * (2 + 2)
    assert len(yamlfile.load(tmp_path / "i.yaml", Inventory).devices) == 2
