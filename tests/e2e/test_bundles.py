"""Runs under hermetic bundles: the answers of an installed Python, and nothing of it needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.bundles.build import ensure
from orchestrator.store.database import Store
from orchestrator.transports import open_transport
from orchestrator.transports.settings import SshSettings
from tests.support.cli import REPO, assay
from tests.support.hermetic import native, small
from tests.support.tiny import MODELS, Tiny


def litert(tiny: Tiny) -> Tiny:
    tiny.file.update(name="int8", path=str(MODELS / "digits_cnn.int8.tflite"), layout="same")
    tiny.matrix["runtimes"] = [{"name": "lite", "runtime": "litert"}]
    tiny.policy["reference"] = [{"device": "bench", "runtime": "lite"}]
    return tiny


def results(store: Path) -> list[dict[str, Any]]:
    """What the attempts of the newest run brought, by the name of their device."""
    with Store.open(store, readonly=True) as opened:
        run = opened.run(None).id
        found = sorted(opened.attempts(run), key=lambda a: str(a.device))
    return [a.result for a in found if a.result is not None]


def test_a_bundle_answers_as_the_installed_python_does(tiny: Tiny, store: Path) -> None:
    bundle = native()
    python = {"litert": f"bundle:{bundle.name}"}
    litert(tiny).devices.append(tiny.device("hermetic", python=python))
    done = assay("run", tiny.write(), "--json", store=store)
    assert done.code != 3, done.err
    plain, hermetic = results(store)
    assert plain["bundle"] is None
    assert hermetic["bundle"] == {"name": bundle.name, "sha256": bundle.sha256}
    assert [o["blob"] for o in plain["outputs"]] == [o["blob"] for o in hermetic["outputs"]]
    assert hermetic["bytes_pushed"] > bundle.size
    again = assay("run", tiny.write(), "--json", store=store)
    assert again.code == done.code
    assert [r["bytes_pushed"] for r in results(store)] == [0, 0]
    assert results(store)[1]["bundle"]["sha256"] == bundle.sha256


def test_one_that_is_not_built_is_refused_before_anything_is_queued(
    tiny: Tiny, store: Path, tmp_path: Path
) -> None:
    litert(tiny).devices[0]["python"] = {"litert": "bundle:aarch64-litert"}
    env = {"ASSAY_BUNDLES": str(tmp_path / "none")}
    for command in ("plan", "run", "submit"):
        done = assay(command, tiny.write(), store=store, env=env)
        done.refused(2, "E-BUNDLE-MISSING", "python -m infra.bundles build aarch64-litert")
    assert not store.exists()
    # A cell that never needs it does not ask for it.
    tiny.devices[0]["python"] |= {"default": "python3"}
    tiny.matrix["runtimes"] = [{"name": "lite", "runtime": "onnxruntime"}]
    tiny.file.update(name="u8s8", path=str(MODELS / "digits_cnn.u8s8.onnx"), layout="nchw")
    assert assay("submit", tiny.write(), store=store, env=env).code == 0


def test_a_damaged_one_is_refused(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    made = small(tmp_path)
    data = Path(made.path).read_bytes()
    Path(made.path).write_bytes(data[:-1] + b"?")
    litert(tiny).devices[0]["python"] = {"litert": "bundle:small"}
    done = assay("submit", tiny.write(), store=store, env={"ASSAY_BUNDLES": str(tmp_path)})
    done.refused(2, "E-BUNDLE-DAMAGED", "--force small")
    with Store.open(store, readonly=True) as opened:
        assert opened.runs() == []


def test_a_run_keeps_the_bundle_it_began_with(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """Resumed after another one was built, and with none there at all."""
    bundle = native()
    folder = tmp_path / "bundles"
    folder.mkdir()
    (folder / Path(bundle.path).name).symlink_to(bundle.path)
    manifest = {"file": Path(bundle.path).name, "sha256": bundle.sha256, "size": bundle.size}
    (folder / "mine.json").write_text(json.dumps(manifest))
    litert(tiny).devices[0]["python"] = {"litert": "bundle:mine"}
    env = {"ASSAY_BUNDLES": str(folder)}
    assert assay("submit", tiny.write(), store=store, env=env).code == 0
    (folder / "mine.json").unlink()
    done = assay("resume", "--json", store=store, env=env)
    assert done.code != 3, done.err
    (only,) = results(store)
    assert only["bundle"] == {"name": "mine", "sha256": bundle.sha256}


def remove(board: str, transport: dict[str, Any]) -> None:
    """The folder that only this test used: an unpacked bundle is as large as a board's system."""
    settings = SshSettings.model_validate(
        {
            k: str(Path(v).expanduser()) if k in ("key", "known_hosts") else v
            for k, v in transport.items()
        }
    )
    with open_transport(settings, device=board) as opened:
        opened.run(["rm", "-rf", "--", str(opened.root())], timeout=120)


@pytest.mark.farm
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("board", "file", "runtime", "name"),
    [
        ("qemu-a72", "digits_cnn.int8.tflite", "litert", "aarch64-litert"),
        ("qemu-a72", "digits_cnn.u8s8.onnx", "onnxruntime", "aarch64-onnxruntime"),
        ("qemu-armhf", "digits_cnn.int8.tflite", "tflite-runtime", "armhf-tflite"),
    ],
)
def test_a_board_answers_the_same_under_its_own_python_and_under_a_bundle(
    tiny: Tiny,
    store: Path,
    request: pytest.FixtureRequest,
    board: str,
    file: str,
    runtime: str,
    name: str,
) -> None:
    ensure(name)
    inventory = REPO / "matrices" / "inventories" / "lab.yaml"
    listed = yaml.safe_load(inventory.read_text())["devices"]
    unit = next(d for d in listed if d["name"] == board)
    root = f".cache/assay/device-{tiny.folder.parent.name}"
    unit["transport"]["root"] = root
    layout = "nchw" if file.endswith(".onnx") else "same"
    tiny.file.update(name="int8", path=str(MODELS / file), layout=layout)
    tiny.matrix["runtimes"] = [{"name": "run", "runtime": runtime}]
    tiny.policy["reference"] = [{"device": board, "runtime": "run"}]
    found = []
    request.addfinalizer(lambda: remove(board, unit["transport"]))
    for python in ({"default": "/usr/bin/python3"}, {runtime: f"bundle:{name}"}):
        tiny.devices = [unit | {"python": python}]
        done = assay("run", tiny.write(), "--json", store=store, timeout=800)
        assert done.code != 3, done.err
        found += results(store)
    own, bundled = found
    assert (own["bundle"], bundled["bundle"]["name"]) == (None, name)
    assert [o["blob"] for o in own["outputs"]] == [o["blob"] for o in bundled["outputs"]]
