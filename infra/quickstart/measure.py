"""Measure the quickstart's models under several kernel sets; write `card.json`, `MODEL_CARD.md`.

Native ONNX Runtime and LiteRT run in the Python that runs this script; tflite-runtime in the one
given; older x86 CPUs are QEMU's. Nothing here trains or changes a model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

HERE: Final = Path(__file__).parent
DATA: Final = {"digits_cnn": "digits_8x8.npz", "digits_ds": "digits_32x32.npz"}
ONNX_TAGS: Final = ("fp32", "u8s8", "u8u8", "u8s8_rr")
TFLITE_TAGS: Final = ("fp32", "int8")

Output = npt.NDArray[Any]


@dataclass(frozen=True)
class Kernels:
    """One way to run a model: runtime, kernel choice, threads, and the CPU it is shown."""

    name: str
    runtime: str
    choice: str = "default"
    threads: int = 1
    cpu: str | None = None  # a QEMU CPU model; None is this host
    environment: Mapping[str, str] = field(default_factory=dict)


# OpenBLAS picks AVX code on an emulated Nehalem and dies of it unless told.
NEHALEM: Final = {"OPENBLAS_CORETYPE": "Nehalem"}

KERNELS: Final = (
    Kernels("ort", "onnxruntime"),
    Kernels("ort-2-threads", "onnxruntime", threads=2),
    Kernels("ort-haswell", "onnxruntime", cpu="Haswell"),
    Kernels("ort-nehalem", "onnxruntime", cpu="Nehalem", environment=NEHALEM),
    Kernels("litert", "litert"),
    Kernels("litert-2-threads", "litert", threads=2),
    Kernels("litert-no-delegate", "litert", "no_delegate"),
    Kernels("litert-reference", "litert", "reference"),
    Kernels("litert-haswell", "litert", cpu="Haswell"),
    Kernels("litert-nehalem", "litert", cpu="Nehalem", environment=NEHALEM),
    Kernels("tflite-2.14", "tflite"),
    Kernels("tflite-2.14-reference", "tflite", "reference"),
)

# Pairs that are compared; the second is the baseline.
PAIRS: Final = (
    ("ort-2-threads", "ort"),
    ("ort-haswell", "ort"),
    ("ort-nehalem", "ort"),
    ("litert-2-threads", "litert"),
    ("litert-haswell", "litert"),
    ("litert-nehalem", "litert"),
    ("litert-no-delegate", "litert"),
    ("litert-reference", "litert"),
    ("tflite-2.14", "litert"),
    ("tflite-2.14-reference", "tflite-2.14"),
    ("tflite-2.14-reference", "litert-reference"),
)


# --- running --------------------------------------------------------------------------------------


def command(kernels: Kernels, tflite_python: Path, qemu: str) -> list[str]:
    """The argv that starts `run_kernels.py` where these kernels live."""
    python = str(tflite_python) if kernels.runtime == "tflite" else sys.executable
    emulator = [qemu, "-cpu", kernels.cpu] if kernels.cpu else []
    arguments = ["--runtime", kernels.runtime, "--kernels", kernels.choice]
    arguments += ["--threads", str(kernels.threads)]
    return [*emulator, python, str(HERE / "run_kernels.py"), *arguments]


def run_all(data: Path, tflite_python: Path, qemu: str) -> dict[str, dict[str, Output]]:
    """Outputs by model file name, then by kernels."""
    outputs: dict[str, dict[str, Output]] = {}
    for kernels in KERNELS:
        for net, images in DATA.items():
            suffix = "onnx" if kernels.runtime == "onnxruntime" else "tflite"
            tags = ONNX_TAGS if suffix == "onnx" else TFLITE_TAGS
            names = [f"{net}.{tag}.{suffix}" for tag in tags]
            with tempfile.TemporaryDirectory() as scratch:
                argv = command(kernels, tflite_python, qemu)
                argv += ["--data", str(data / images), "--out", scratch]
                argv += [str(data / "models" / name) for name in names]
                environment = {**os.environ, **kernels.environment}
                subprocess.run(argv, check=True, env=environment, stderr=subprocess.DEVNULL)
                for name in names:
                    result = np.load(Path(scratch) / f"{name}.npy")
                    outputs.setdefault(name, {})[kernels.name] = result
            print(f"{kernels.name}: {', '.join(names)}", flush=True)
    return outputs


# --- counting -------------------------------------------------------------------------------------


def interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson, 95 %, two-sided, for `hits` of `n`."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def output_scale(path: Path) -> float | None:
    """One step of the output lattice, or None for a float model."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(path).graph
        last = graph.node[-1]
        if last.op_type != "DequantizeLinear":
            return None
        weights = {w.name: w for w in graph.initializer}
        return float(onnx.numpy_helper.to_array(weights[last.input[1]]))
    from ai_edge_litert.interpreter import Interpreter

    scale = Interpreter(model_path=str(path)).get_output_details()[0]["quantization"][0]
    return float(scale) or None


def difference(ours: Output, theirs: Output, scale: float | None) -> dict[str, object]:
    """How two sets of outputs differ: elements, images, the largest step, the answers.

    The largest difference is in LSB where outputs lie on a lattice, else in the output's own unit.
    """
    differs = ours != theirs
    largest = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())
    if scale is not None:
        largest = round(largest / (1.0 if ours.dtype.kind in "iu" else scale))
    return {
        "elements": int(differs.sum()),
        "elements_of": int(differs.size),
        "images": int(differs.any(axis=1).sum()),
        "largest": largest,
        "unit": "logit" if scale is None else "LSB",
        "flips": int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()),
    }


def against_parent(int8: Output, fp32: Output, labels: Output) -> dict[str, int]:
    """Answers of an INT8 model against its FP32 parent's, split by who was right."""
    right, was_right = int8.argmax(axis=1) == labels, fp32.argmax(axis=1) == labels
    return {
        "flips": int((int8.argmax(axis=1) != fp32.argmax(axis=1)).sum()),
        "correct_to_incorrect": int((was_right & ~right).sum()),
        "incorrect_to_correct": int((~was_right & right).sum()),
    }


def count(data: Path, outputs: dict[str, dict[str, Output]]) -> dict[str, Any]:
    """Everything the card says in numbers."""
    labels = np.load(data / DATA["digits_cnn"])["y"]
    scales = {name: output_scale(data / "models" / name) for name in outputs}
    return {
        "n": len(labels),
        "class_counts": np.bincount(labels, minlength=10).tolist(),
        "correct": {
            name: {k: int((out.argmax(axis=1) == labels).sum()) for k, out in runs.items()}
            for name, runs in outputs.items()
        },
        "differences": [
            {"model": name, "kernels": a, "baseline": b}
            | difference(runs[a], runs[b], scales[name])
            for name, runs in outputs.items()
            for a, b in PAIRS
            if a in runs
        ],
        "against_fp32": {
            name: against_parent(runs[native], outputs[parent_of(name)][native], labels)
            for name, runs in outputs.items()
            for native in ("ort", "litert")
            if native in runs and ".fp32." not in name
        },
    }


def parent_of(name: str) -> str:
    """The FP32 file an INT8 file was made from, in the same format."""
    net, _, suffix = name.split(".")
    return f"{net}.fp32.{suffix}"


def host_cpu() -> dict[str, object]:
    """The CPU's name and the flags that decide which INT8 kernels are picked."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = {key.strip(): value.strip() for key, _, value in (li.partition(":") for li in lines)}
    wanted = {"avx2", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8"}
    return {
        "model": found.get("model name", "unknown"),
        "flags": sorted(wanted & set(found.get("flags", "").split())),
    }


def versions(tflite_python: Path, qemu: str) -> dict[str, str]:
    """What ran: both environments and the emulator."""
    ask = "from importlib.metadata import version as v; print(v('tflite-runtime'), v('numpy'))"
    told = subprocess.run([tflite_python, "-c", ask], check=True, capture_output=True, text=True)
    tflite, tflite_numpy = told.stdout.split()
    told = subprocess.run([qemu, "--version"], check=True, capture_output=True, text=True)
    return {
        "onnxruntime": version("onnxruntime"),
        "ai-edge-litert": version("ai-edge-litert"),
        "numpy": version("numpy"),
        "tflite-runtime": tflite,
        "numpy (tflite-runtime)": tflite_numpy,
        "qemu": told.stdout.split()[2],
    }


# --- the card -------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    rule = ("---", *("---:" for _ in head[1:]))
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def share(hits: int, n: int) -> str:
    """A count as a percentage with its interval."""
    low, high = interval(hits, n)
    return f"{100 * hits / n:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def accuracy_rows(card: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One row per model file: its accuracy on the native default kernels, and against FP32."""
    for name, runs in card["correct"].items():
        native = "ort" if "ort" in runs else "litert"
        against = card["against_fp32"].get(name)
        moved = (
            (
                str(against["flips"]),
                f"{against['correct_to_incorrect']} / {against['incorrect_to_correct']}",
            )
            if against
            else ("–", "–")
        )
        hits = runs[native]
        yield f"`{name}`", native, str(hits), share(hits, card["n"]), *moved


def difference_rows(card: dict[str, Any], runtime: str) -> Iterator[tuple[str, ...]]:
    """One row per model file and compared pair of a runtime family that is not bit-identical."""
    for row in card["differences"]:
        if not row["elements"] or not row["kernels"].startswith(runtime):
            continue
        largest = row["largest"]
        yield (
            f"`{row['model']}`",
            row["kernels"],
            row["baseline"],
            f"{row['elements']:,}",
            f"{row['images']:,}",
            f"{largest} LSB" if row["unit"] == "LSB" else f"{largest:.1e}",
            str(row["flips"]),
            share(row["flips"], card["n"]),
            str(card["correct"][row["model"]][row["kernels"]]),
        )


def identical_lines(card: dict[str, Any], runtime: str) -> str:
    """A list, by model, of the compared pairs that gave the same bytes for every image."""
    same: dict[str, list[str]] = {}
    for row in card["differences"]:
        if not row["elements"] and row["kernels"].startswith(runtime):
            pair = f"{row['kernels']} = {row['baseline']}"
            same.setdefault(row["model"], []).append(pair)
    return "\n".join(f"- `{model}`: {', '.join(pairs)}" for model, pairs in same.items())


def file_rows(data: Path) -> Iterator[tuple[str, ...]]:
    """One row per file that `train.py` wrote, with its size."""
    for line in (data / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        yield f"`{name}`", f"{(data / name).stat().st_size:,}", f"`{digest[:16]}…`"


DIFFERENCE_HEAD: Final = (
    "model",
    "kernels",
    "baseline",
    "elements",
    "images",
    "largest",
    "flips",
    "flips (95 % CI)",
    "correct",
)


def render(data: Path, card: dict[str, Any]) -> str:
    """The model card in Markdown: the prose of `card.md.in` with the numbers put in."""
    build = json.loads((data / "BUILD.json").read_text())
    split = json.loads((data / "SPLIT.json").read_text())
    accuracy_head = ("model", "kernels", "correct", "accuracy (95 % CI)", "flips", "C→I / I→C")
    values = {
        "n": f"{card['n']:,}",
        "train": str(len(split["train"])),
        "calibration": str(len(split["calibration"])),
        "seed": str(split["seed"]),
        "classes": ", ".join(f"{i}: {c}" for i, c in enumerate(card["class_counts"])),
        "tools": ", ".join(f"{k} {v}" for k, v in sorted(build["tools"].items())),
        "python": build["python"],
        "zlib": build["zlib"],
        "build_cpu": build["cpu"],
        "cnn_parameters": f"{build['parameters']['digits_cnn']:,}",
        "ds_parameters": f"{build['parameters']['digits_ds']:,}",
        "gap": f"{max(build['fp32_largest_difference'].values()):.1e}",
        "host": f"{card['host']['model']} ({', '.join(card['host']['flags'])})",
        "versions": ", ".join(f"{k} {v}" for k, v in card["versions"].items()),
        "accuracy": table(accuracy_head, accuracy_rows(card)),
        "onnx": table(DIFFERENCE_HEAD, difference_rows(card, "ort")),
        "onnx_same": identical_lines(card, "ort"),
        "litert": table(DIFFERENCE_HEAD, difference_rows(card, "litert")),
        "litert_same": identical_lines(card, "litert"),
        "tflite": table(DIFFERENCE_HEAD, difference_rows(card, "tflite")),
        "tflite_same": identical_lines(card, "tflite"),
        "files": table(("file", "bytes", "sha256 (start)"), file_rows(data)),
    }
    return Template((HERE / "card.md.in").read_text()).substitute(values)


def main() -> None:
    """Run every model under every kernel set, count, write both cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder train.py wrote")
    parser.add_argument("--tflite-python", type=Path, help="has tflite-runtime 2.14")
    parser.add_argument("--qemu", default="qemu-x86_64-static")
    parser.add_argument("--render-only", action="store_true", help="MODEL_CARD.md from card.json")
    args = parser.parse_args()
    numbers = args.data / "card.json"
    if not args.render_only:
        if args.tflite_python is None:
            parser.error("--tflite-python is needed to measure")
        card = {
            "schema": 1,
            "host": host_cpu(),
            "versions": versions(args.tflite_python, args.qemu),
            **count(args.data, run_all(args.data, args.tflite_python, args.qemu)),
        }
        numbers.write_text(json.dumps(card, indent=1) + "\n")
    (args.data / "MODEL_CARD.md").write_text(render(args.data, json.loads(numbers.read_text())))


if __name__ == "__main__":
    main()
