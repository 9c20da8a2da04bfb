"""The virtual farm without starting a board: definitions, thermal model, processes, building."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.virtual_farm import (
    binfmt,
    boardroot,
    command,
    control,
    debian,
    doctor,
    farm,
    phonebase,
    phonefiles,
    prepare,
    proctree,
    rootfs,
    sensors,
    sysfs,
)
from infra.virtual_farm import board as boards
from infra.virtual_farm.config import (
    Board,
    FarmError,
    Paths,
    QemuPackage,
    UsageError,
    load_definitions,
    parse_board,
    parse_phone,
)
from infra.virtual_farm.namespaces import subordinate_range
from infra.virtual_farm.proctree import ProcessId, end, identify, is_alive
from infra.virtual_farm.thermal import (
    FREQUENCY_CAPPED,
    SOFT_LIMIT,
    STICKY_SHIFT,
    THROTTLED,
    UNDERVOLTAGE,
    ThermalModel,
    cpu_ticks,
    read_stats,
)

REPO = Path(__file__).resolve().parents[2]
INVENTORY = REPO / "matrices/inventories/lab.yaml"
DEFINITIONS = load_definitions()
A53 = DEFINITIONS.boards["qemu-a53"]
PHONE = DEFINITIONS.boards["qemu-phone"]
BOARDS = ["qemu-a53", "qemu-a72", "qemu-a76", "qemu-haswell", "qemu-nehalem", "qemu-badboard",
          "qemu-armhf"]  # fmt: skip
NAMES = [*BOARDS, "qemu-phone"]


def raw_board(**changes: Any) -> dict[str, Any]:
    """Return one entry of boards.yaml with changes."""
    entry: dict[str, Any] = yaml.safe_load((REPO / "infra/virtual_farm/boards.yaml").read_text())
    return {**entry["boards"]["qemu-a53"], **changes}


# --- definitions


def test_definitions_are_the_boards_of_the_design() -> None:
    assert list(DEFINITIONS.boards) == NAMES
    bad = DEFINITIONS.boards["qemu-badboard"]
    # Only this combination computes wrong results; another version would be a sound board.
    assert (bad.qemu_version, bad.cpu) == ("7.2", "max")
    nehalem = DEFINITIONS.boards["qemu-nehalem"]
    assert nehalem.environment == {"OPENBLAS_CORETYPE": "Nehalem"}
    for board in DEFINITIONS.boards.values():
        assert board.thermal.hysteresis_c < board.thermal.trip_c < board.thermal.critical_c


LIKE = {"arm64": "generic-arm64", "armhf": "generic-armhf", "amd64": "x86-64"}


def inventory_entry(board: Board) -> dict[str, Any]:
    """Return what stands in an inventory for a unit."""
    entry: dict[str, Any] = {
        "name": board.name,
        "class": board.name,
        "like": "android-arm64" if board.phone else LIKE[board.arch],
        "tags": [board.arch, "emulated"],
    }
    if board.phone:
        bundles = {"litert": "bundle:aarch64-litert", "onnxruntime": "bundle:aarch64-onnxruntime"}
        return entry | {
            "transport": {"type": "adb", "serial": f"{board.address}:{board.port}"},
            "python": bundles,
        }
    ssh = {
        "type": "ssh",
        "host": board.address,
        "port": board.port,
        "user": "root",
        "key": "~/.cache/assay/farm/id_ed25519",
        "known_hosts": "~/.cache/assay/farm/known_hosts",
    }
    return entry | {"transport": ssh, "python": {"default": "/usr/bin/python3"}}


def test_inventory_matches_the_definitions() -> None:
    inventory = yaml.safe_load(INVENTORY.read_text(encoding="utf-8"))
    assert inventory["version"] == 1
    # This machine and its stand-in stand beside them.
    entries = [entry for entry in inventory["devices"] if entry["name"] in DEFINITIONS.boards]
    assert entries == [inventory_entry(board) for board in DEFINITIONS.boards.values()]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"arch": "riscv64"}, "arch must be one of"),
        ({"address": "192.0.2.1"}, "loopback"),
        ({"ncpu": "four"}, "four"),
        ({"qemu": {"version": "7.2"}}, "missing 'cpu'"),
        ({"thermal": {"ambient_c": 25}}, "missing 6 required"),
    ],
)
def test_a_bad_definition_names_board_and_reason(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FarmError, match=complaint) as caught:
        parse_board("mine", 2222, "bookworm", raw_board(**changes))
    assert "boards.yaml: board mine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"environment": {}}, "unknown key environment"),
        ({"arch": "armhf"}, "arch must be one of arm64"),
        ({"data_mb": "much"}, "much"),
        ({"properties": None}, "phone mine: "),
    ],
)
def test_a_bad_phone_names_itself_and_the_reason(changes: dict[str, Any], complaint: str) -> None:
    entry = yaml.safe_load((REPO / "infra/virtual_farm/boards.yaml").read_text())["phones"]
    with pytest.raises(FarmError, match=complaint) as caught:
        parse_phone("mine", 5555, "trixie", {**entry["qemu-phone"], **changes})
    assert "\n" not in str(caught.value)


def test_definitions_file_must_be_readable_and_addresses_unique(tmp_path: Path) -> None:
    with pytest.raises(FarmError, match=r"cannot read none\.yaml"):
        load_definitions(tmp_path / "none.yaml")
    double = tmp_path / "boards.yaml"
    raw = {
        "port": {"boards": 1, "phones": 2},
        "debian": {"boards": "x", "phones": "y"},
        "qemu": {"7.2": {"debian": "x", "package": "p"}},
        "phones": {},
    }
    double.write_text(yaml.safe_dump(raw | {"boards": {"one": raw_board(), "two": raw_board()}}))
    with pytest.raises(FarmError, match="same address"):
        load_definitions(double)
    old = raw_board(qemu={"version": "6.0", "cpu": "max"})
    double.write_text(yaml.safe_dump(raw | {"boards": {"one": old}}))
    with pytest.raises(FarmError, match=r"one: no QEMU 6\.0"):
        load_definitions(double)


def test_unknown_board_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no such board: qemu-a99"):
        DEFINITIONS.select(["qemu-a99"])
    assert [board.name for board in DEFINITIONS.select([])] == NAMES


def test_units_are_chosen_by_kind_too_and_each_once() -> None:
    assert [board.name for board in DEFINITIONS.select(["boards"])] == BOARDS
    assert [board.name for board in DEFINITIONS.select(["phones", "qemu-phone"])] == ["qemu-phone"]


# --- what a board shows


@pytest.mark.parametrize("name", BOARDS)
def test_sys_has_the_topology_without_which_litert_loses_xnnpack(name: str) -> None:
    board = DEFINITIONS.boards[name]
    files = sysfs.tree(board)
    assert files["sys/devices/system/cpu/possible"] == "0-3"
    assert files["sys/devices/system/cpu/present"] == "0-3"
    assert sysfs.cpuinfo(board).count("processor\t:") == board.ncpu
    assert (sysfs.GET_THROTTLED in files) == (board.arch != "amd64")


def test_cpuinfo_shows_the_core() -> None:
    assert "CPU part\t: 0xd03\n" in sysfs.cpuinfo(A53)
    flags = sysfs.cpuinfo(DEFINITIONS.boards["qemu-haswell"])
    assert " avx2 " in flags
    assert "avx512" not in flags
    armhf = sysfs.cpuinfo(DEFINITIONS.boards["qemu-armhf"])
    assert "CPU architecture\t: 7\n" in armhf
    assert "CPU part\t: 0xc07\n" in armhf


def test_board_identity_is_set_by_bring_up() -> None:
    assert json.loads(boardroot.identity(A53, "7.2.22")) == {
        "class": "qemu-a53",
        "emulated": True,
        "qemu": "7.2.22",
        "cpu": "cortex-a53",
    }


def test_sshd_sets_the_environment_in_one_line() -> None:
    text = boardroot.sshd_config(DEFINITIONS.boards["qemu-nehalem"])
    (line,) = [line for line in text.splitlines() if line.startswith("SetEnv ")]
    for setting in ("PYTHONPATH=/opt/site", "PYTHONDONTWRITEBYTECODE=1"):
        assert setting in line.split()
    assert "OPENBLAS_CORETYPE=Nehalem" in line.split()
    assert "ListenAddress 127.77.0.15\n" in text


def test_features_qemu_lacks_are_switched_off_but_not_part_of_the_name() -> None:
    haswell = DEFINITIONS.boards["qemu-haswell"]
    assert haswell.cpu == "Haswell"
    assert haswell.qemu_cpu.startswith("Haswell,-pcid,")
    assert A53.qemu_cpu == "cortex-a53"


# --- what a phone shows


def phone_model(**at: float) -> ThermalModel:
    heat = ThermalModel(PHONE.thermal, PHONE.frequencies_khz)
    heat.step(1.0, 0.0, at)
    return heat


def test_properties_are_what_getprop_reads(tmp_path: Path) -> None:
    text = phonefiles.properties(PHONE)
    assert "ro.product.cpu.abi=arm64-v8a\n" in text
    assert "ro.build.fingerprint=assay/qemu_phone/" in text
    properties = tmp_path / "properties"
    properties.write_text(text)
    script = (phonebase.SCRIPTS / "getprop").read_text()

    def getprop(*words: str) -> str:
        argv = ["sh", "-c", script.replace("/system/etc/properties", str(properties)), "getprop"]
        return subprocess.run([*argv, *words], capture_output=True, text=True, check=True).stdout

    assert getprop("ro.serialno") == "ASSAYPHONE0001\n"
    assert getprop("ro.none") == "\n"
    assert getprop("ro.none", "else") == "else\n"
    assert "[ro.product.model]: [Virtual phone]\n" in getprop()


def test_the_battery_is_read_in_tenths_and_can_be_driven() -> None:
    text = phonefiles.battery(PHONE, phone_model(temp_c=34.7), {})
    assert "\n  level: 84\n" in text
    assert "\n  temperature: 337\n" in text
    assert "\n  USB powered: true\n" in text
    low = phonefiles.battery(PHONE, phone_model(), {"battery": 5, "plugged": 0})
    assert "\n  level: 5\n" in low
    assert "\n  status: 3\n" in low
    assert "powered: true" not in low
    assert "temperature" not in phonefiles.battery(PHONE, phone_model(), {"sensor_missing": 1})


def test_thermalservice_tells_the_current_from_the_cached_and_degrees_from_the_rest() -> None:
    text = phonefiles.thermalservice(PHONE, phone_model(temp_c=45), {})
    cached, current = text.split("Current temperatures from HAL:\n")
    assert "Temperature{mValue=31.000, mType=3, mName=skin, mStatus=0}" in cached
    assert "Temperature{mValue=45.000, mType=3, mName=skin, mStatus=2}" in current
    assert "mValue=50.000, mType=0" in current
    assert "mValue=16.000, mType=8" in current  # percent
    assert "Thermal Status: 2\n" in text
    assert "CoolingDevice{mValue=1, " in text
    away = phonefiles.thermalservice(PHONE, phone_model(temp_c=45), {"sensor_missing": 1})
    assert "HAL Ready: false\n" in away
    assert "Current temperatures" not in away


def test_a_phones_sys_is_there_for_runtimes_and_half_closed(tmp_path: Path) -> None:
    files = phonefiles.tree(PHONE, phone_model())
    assert files["sys/devices/system/cpu/possible"] == "0-3"
    assert not any("get_throttled" in name or "devicetree" in name for name in files)
    closed = {name.rpartition("/")[2] for name in files} & set(phonefiles.UNREADABLE)
    assert closed == {"temp", "scaling_max_freq", "cpuinfo_max_freq"}
    assert f"{sysfs.CPU}/cpu0/cpufreq/scaling_cur_freq" in files


# --- thermal model


def model() -> ThermalModel:
    return ThermalModel(A53.thermal, A53.frequencies_khz)


def run(heat: ThermalModel, seconds: int, busy: float = 0.0, **control: float) -> None:
    for _ in range(seconds):
        heat.step(1.0, busy, control)


def test_idle_board_stays_in_balance() -> None:
    heat = model()
    run(heat, 100)
    assert heat.temp_c == pytest.approx(43.0)
    assert (heat.flags, heat.frequency_khz) == (0, 1_200_000)


def test_load_heats_and_rest_cools_towards_the_balance() -> None:
    heat = model()
    run(heat, 20, busy=2)
    after_one_time_constant = 43 + 28 * (1 - 2.718281828**-1)
    assert heat.temp_c == pytest.approx(after_one_time_constant, abs=0.01)
    run(heat, 300, busy=2)
    assert heat.temp_c == pytest.approx(71, abs=0.1)
    run(heat, 300)
    assert heat.temp_c == pytest.approx(43, abs=0.1)


def test_step_width_does_not_matter() -> None:
    fine, coarse = model(), model()
    for _ in range(100):
        fine.step(0.1, 1.0, {})
    coarse.step(10.0, 1.0, {})
    assert fine.temp_c == pytest.approx(coarse.temp_c)


def test_throttling_has_hysteresis_and_a_memory() -> None:
    heat = model()
    run(heat, 1, temp_c=81)
    assert heat.frequency_khz == 1_000_000
    now = FREQUENCY_CAPPED | SOFT_LIMIT
    assert heat.flags == now | now << STICKY_SHIFT
    run(heat, 5, temp_c=78)  # below the trip point, but not by enough
    assert heat.frequency_khz == 1_000_000
    run(heat, 1, temp_c=70)
    assert heat.frequency_khz == 1_200_000
    assert heat.flags == now << STICKY_SHIFT
    run(heat, 1, temp_c=90, undervoltage=1)
    assert heat.frequency_khz == 600_000
    assert heat.flags & 0xF == FREQUENCY_CAPPED | SOFT_LIMIT | THROTTLED | UNDERVOLTAGE


def test_full_load_in_the_heat_settles_by_throttling() -> None:
    heat = model()
    run(heat, 600, busy=4, ambient_c=35)
    assert heat.temp_c < A53.thermal.critical_c
    assert heat.flags >> STICKY_SHIFT & FREQUENCY_CAPPED


def stat_line(pid: int, name: str, *times: int) -> str:
    return f"{pid} ({name}) S {' '.join(['0'] * 10)} {' '.join(map(str, times))} 20 0 1 0 99"


def test_cpu_time_counts_waited_children_and_leaves_out_the_farms_own_loop() -> None:
    lines = [stat_line(1, "python", 1000, 1000, 5, 6), stat_line(7, "a) b (", 10, 20, 30, 40)]
    assert cpu_ticks(lines) == 5 + 6 + 100
    assert cpu_ticks(read_stats()) > 0


# --- sensors


def test_a_value_is_replaced_in_place_so_that_an_open_sensor_sees_it(tmp_path: Path) -> None:
    sensor = tmp_path / "temp"
    sensor.write_text("100000\n")
    with sensor.open() as handle:
        sensors.overwrite(sensor, "9900")
        assert handle.read() == "9900\n"


def test_sensors_show_the_model_and_can_go_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = tmp_path / "control.json"
    monkeypatch.setattr(sensors, "CONTROL_FILE", control)
    sysfs.write_tree(tmp_path, sysfs.tree(A53))
    meter = sensors.Sensors(A53, tmp_path)
    control.write_text('{"temp_c": 88.5}')
    meter.tick()
    temperature = tmp_path / sysfs.ZONE / "temp"
    clock = tmp_path / sysfs.CPU / "cpu3/cpufreq/scaling_cur_freq"
    assert temperature.read_text() == "88500\n"
    assert clock.read_text() == "600000\n"
    assert (tmp_path / sysfs.GET_THROTTLED).read_text() == "e000e\n"
    control.write_text('{"temp_c": 50, "sensor_missing": 1}')
    meter.tick()
    assert temperature in list(temperature.parent.iterdir())  # there, but not to be read
    with pytest.raises(OSError):
        temperature.read_text()
    control.write_text('{"temp_c": 50}')
    meter.tick()
    assert temperature.read_text() == "50000\n"


def test_a_phones_sensors_move_its_dumps_and_stay_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = tmp_path / "control.json"
    monkeypatch.setattr(sensors, "CONTROL_FILE", wish)
    sysfs.write_tree(tmp_path, phonefiles.tree(PHONE, phone_model()))
    meter = sensors.Sensors(PHONE, tmp_path)
    wish.write_text('{"temp_c": 47, "battery": 12}')
    meter.tick()
    assert "  temperature: 460\n" in (tmp_path / phonefiles.BATTERY).read_text()
    assert "mValue=47.000, mType=3" in (tmp_path / phonefiles.THERMAL).read_text()
    zone = tmp_path / sysfs.ZONE / "temp"
    assert zone.read_text() == "52000\n"
    assert zone.stat().st_mode & 0o777 == 0o400
    wish.write_text('{"sensor_missing": 1}')
    meter.tick()
    with pytest.raises(OSError):
        zone.read_text()
    assert "HAL Ready: false" in (tmp_path / phonefiles.THERMAL).read_text()
    assert [
        path.name for path in (tmp_path / phonefiles.DUMPS).iterdir() if "new" in path.name
    ] == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"temp_c": "hot"}', '{"other": 1}'])
def test_unusable_control_is_no_control(tmp_path: Path, text: str) -> None:
    path = tmp_path / "control.json"
    path.write_text(text)
    assert control.read_control(path) == {}
    assert control.read_control(tmp_path / "none") == {}
    assert control.Watch(path)() == {}


def test_control_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    watch = control.Watch(path)
    assert watch() == {}
    boards.write_atomically(path, '{"cable": 0}')
    assert watch() == {"cable": 0.0}
    boards.write_atomically(path, '{"cable": 1}')
    assert watch() == {"cable": 1.0}


def test_whoever_asks_waits_until_it_is_done_and_is_told_when_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path)
    monkeypatch.setattr(boards, "APPLY_TIMEOUT_S", 0.05)
    with pytest.raises(FarmError, match="qemu-phone did not do it"):
        boards.ask(paths, "qemu-phone", {"cable": 0})
    shared = boards.shared_folder(paths, "qemu-phone")
    control.report(shared / "relay.json", {"cable": 0})
    control.report(shared / "init.json", {"adbd": 1, "kicks": 2})
    boards.ask(paths, "qemu-phone", {"cable": 0, "kicks": 2, "temp_c": 40})
    assert control.read_control(shared / "control.json")["temp_c"] == 40
    # A full disk is not the unit's end.
    control.report(tmp_path / "none" / "init.json", {"adbd": 1})


# --- processes


@pytest.fixture
def sleeper() -> Any:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_only_the_recorded_process_is_ended(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proctree, "COLLECT_S", 0)  # nobody else collects our own child
    process = identify(sleeper.pid)
    assert process is not None
    assert is_alive(process)
    reused = dataclasses.replace(process, start_ticks=process.start_ticks + 1)
    before_reboot = dataclasses.replace(process, boot_id="another boot")
    for other in (reused, before_reboot):
        assert not is_alive(other)
        assert end(other)
        assert sleeper.poll() is None
    assert end(process)
    assert sleeper.wait() == -9
    assert not is_alive(process)
    assert end(process)


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    process = identify(sleeper.pid)
    assert process is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process)


def test_stale_state_after_a_reboot_is_no_board_and_is_removed(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    stale = ProcessId(os.getpid(), 1, "another boot")
    boards.write_state(paths, "qemu-a53", boards.BoardState(stale, "127.0.0.1", 1))
    assert boards.read_state(paths, "qemu-a53") is not None
    assert boards.running(paths, "qemu-a53") is None
    assert boards.stop(paths, "qemu-a53") is False
    assert not (paths.run / "qemu-a53").exists()


@pytest.mark.parametrize("text", ["", "{}", "null", '{"process": {"pid": 1}}'])
def test_damaged_state_is_no_board(tmp_path: Path, text: str) -> None:
    paths = Paths(tmp_path)
    boards.write_atomically(paths.run / "qemu-a53" / "state.json", text)
    assert boards.running(paths, "qemu-a53") is None


def test_subordinate_ids() -> None:
    table = "# comment\nann:100000:65536\n1001:200000:65536\nbroken\n"
    assert subordinate_range(table, "ann", 1000) == (100000, 65536)
    assert subordinate_range(table, "ben", 1001) == (200000, 65536)
    assert subordinate_range(table, "cat", 1002) is None


# --- registration of the emulator


@pytest.mark.parametrize(
    ("release", "own"),
    [
        ("6.7.0", True),
        ("6.18.44-x", True),
        ("7.0", True),
        ("6.1.0-40-amd64", False),
        ("5.15", False),
    ],
)
def test_kernels_with_a_binfmt_per_namespace(release: str, own: bool) -> None:
    assert binfmt.per_namespace(release) is own


@pytest.mark.parametrize(
    ("arch", "header"),  # as of a PIE
    [
        ("arm64", "7f454c460201010000000000000000000300b700"),
        ("armhf", "7f454c4601010100000000000000000003002800"),
    ],
)
def test_the_rule_fits_a_program_of_its_architecture(arch: str, header: str) -> None:
    rule = binfmt.rule(arch)
    _, name, kind, offset, magic, mask, wrapper, flags = rule.split(":")
    assert (name, kind, offset, wrapper, flags) == (f"assay-{arch}", "M", "", "/.qemu/wrap", "P")
    wanted = bytes.fromhex(magic.replace("\\x", ""))
    bits = bytes.fromhex(mask.replace("\\x", ""))
    assert bytes(h & b for h, b in zip(bytes.fromhex(header), bits, strict=True)) == wanted
    x86 = Path(sys.executable).resolve().read_bytes()[:20]
    assert bytes(h & b for h, b in zip(x86, bits, strict=True)) != wanted
    assert len(rule) < 256  # the kernel takes no more


def test_taking_back_what_was_never_registered_is_nothing(tmp_path: Path) -> None:
    binfmt.unregister_on_host(Paths(tmp_path))
    assert list(tmp_path.iterdir()) == []


# --- building


def test_a_failed_build_leaves_nothing_and_a_good_one_is_reused(tmp_path: Path) -> None:
    target = tmp_path / "base"

    def fails(result: Path) -> None:
        (result / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(FarmError, match="building base: No space left on device"):
        rootfs.build_atomically(target, fails)
    assert list(tmp_path.iterdir()) == []
    assert rootfs.build_atomically(target, lambda result: (result / "whole").touch())
    assert not rootfs.build_atomically(target, fails)
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_leftovers_of_a_killed_build_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tmp-base-arm64-x" / "result").mkdir(parents=True)
    (tmp_path / "base-arm64-1").mkdir()
    paths = Paths(tmp_path)
    prepare.remove_leftovers(paths)
    assert [path.name for path in tmp_path.iterdir()] == ["base-arm64-1"]
    current = {prepare.base_path(paths, A53), prepare.base_path(paths, PHONE)}
    current |= {rootfs.qemu_folder(paths, DEFINITIONS.qemus["7.2"])}
    for path in current:
        path.mkdir()
    (tmp_path / "qemu-7.2").mkdir()
    prepare.remove_outdated(paths, DEFINITIONS)
    assert set(tmp_path.iterdir()) == current


def test_a_phone_that_cannot_be_built_keeps_no_board_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(paths: Paths, qemu: QemuPackage) -> bool:
        if qemu.suite == "trixie":
            raise FarmError("no network")
        return True

    monkeypatch.setattr(rootfs, "ensure_qemu", fetch)
    monkeypatch.setattr(rootfs, "ensure_base", lambda *_: True)
    reasons = prepare.prepare(Paths(tmp_path), DEFINITIONS.boards.values(), DEFINITIONS)
    assert reasons == {"qemu-phone": "no network"}


def test_the_key_of_a_base_depends_on_every_ingredient() -> None:
    assert rootfs.content_key([b"ab", b"c"]) != rootfs.content_key([b"a", b"bc"])
    paths = Paths(Path("/farm"))
    suite = A53.suite
    assert rootfs.base_path(paths, "arm64", suite) != rootfs.base_path(paths, "amd64", suite)
    assert rootfs.base_path(paths, "arm64", suite) != rootfs.base_path(paths, "arm64", "other")


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("tar: x: Cannot write: No space left on device\n", "the disk is full"),
        ("W: y\nE: Temporary failure resolving 'z'\n", "no network (a name cannot be resolved)"),
        ("some talk\nE: Unable to locate package x\nmore\n", "E: Unable to locate package x"),
        ("first\nlast\n", "last"),
        ("", "it said nothing"),
    ],
)
def test_a_failed_tool_is_explained_in_one_line(output: str, line: str) -> None:
    assert command.explain(output) == line


def test_a_tool_that_is_missing_or_fails_is_a_farm_error() -> None:
    with pytest.raises(FarmError, match="trying: no-such-tool-here is not installed"):
        command.run(["no-such-tool-here"], "trying")
    with pytest.raises(FarmError, match="trying: oh no"):
        command.run([sys.executable, "-c", "import sys; sys.exit('oh no')"], "trying")


def test_a_host_without_a_debian_archive_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "Other|Other|u\nDebian|Debian-Security|s\n"
    monkeypatch.setattr(debian, "run", lambda *_: listed)
    with pytest.raises(FarmError, match="no Debian archive"):
        debian.mirror()
    monkeypatch.setattr(debian, "run", lambda *_: listed + "Debian|Debian|file:/a\n")
    assert debian.mirror() == "file:/a"


def test_known_hosts_has_the_form_that_ssh_reads(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    key = paths.host_key("qemu-a53")
    key.parent.mkdir()
    Path(f"{key}.pub").write_text("ssh-ed25519 AAAA comment\n")
    boards.write_known_hosts(paths, [A53, PHONE])
    assert paths.known_hosts.read_text() == "[127.77.0.11]:2222 ssh-ed25519 AAAA\n"


# --- command line


@pytest.fixture
def empty_farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASSAY_FARM_DIR", str(tmp_path / "farm"))
    return tmp_path / "farm"


def test_status_of_a_farm_that_never_was(
    empty_farm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert farm.main(["status", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["boards"]
    assert [row["name"] for row in rows] == NAMES
    assert rows[0] == {
        "name": "qemu-a53",
        "class": "qemu-a53",
        "kind": "board",
        "address": "127.77.0.11",
        "port": 2222,
        "pid": None,
        "up": False,
    }
    assert not empty_farm.exists()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_down_keeps_the_cache_and_purge_leaves_nothing(
    empty_farm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths(empty_farm)
    empty_farm.mkdir()
    boards.ensure_keys(paths, NAMES)
    boards.write_known_hosts(paths, list(load_definitions().boards.values()))
    kept = {p for p in empty_farm.rglob("*") if p.is_file()}
    assert {paths.key, paths.known_hosts, paths.host_key("qemu-a53")} <= kept
    base = empty_farm / "base-arm64-0123"
    for path in (base / "usr", paths.run / "qemu-a53", paths.run / "once", empty_farm / "tmp-1"):
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    assert farm.main(["down"]) == 0
    assert {p for p in empty_farm.rglob("*") if p.is_file()} == kept | {
        base / "usr" / "file",
        paths.lock,
    }
    assert farm.main(["down", "--purge"]) == 0
    assert capsys.readouterr().out.endswith(f"removed {empty_farm}\n")
    assert list(empty_farm.parent.iterdir()) == []


@pytest.mark.usefixtures("empty_farm")
@pytest.mark.parametrize(
    ("argv", "code", "line"),
    [
        (["up", "qemu-a99"], 2, "error: no such board: qemu-a99"),
        (["down", "qemu-a53", "--purge"], 2, "error: --purge removes what all boards share"),
        (["set", "qemu-a53", "temp_c=80"], 3, "error: qemu-a53 is not up"),
        (["set", "boards", "temp_c=80"], 2, "error: no such board: boards"),
        (["kick", "qemu-phone"], 3, "error: qemu-phone is not up"),
        (["down"], 0, ""),
    ],
)
def test_every_refusal_is_one_line(
    argv: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert farm.main(argv) == code
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == (1 if line else 0)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("warmth=1", "unknown setting 'warmth'"),
        ("cable=0", "unknown setting 'cable' (known: ambient_c, temp_c, sensor_missing, "),
        ("temp_c=hot", "temp_c must be a number from -40 to 150"),
        ("temp_c=nan", "temp_c must be"),
        ("temp_c=1000", "temp_c must be"),
        ("temp_c", "temp_c must be"),
    ],
)
def test_set_refuses_what_it_does_not_understand(
    setting: str,
    line: str,
    empty_farm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boards, "running", lambda *_: object())
    assert farm.main(["set", "qemu-a53", setting]) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")
    assert not empty_farm.exists()


def test_set_keeps_other_settings_and_lets_go(
    empty_farm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "running", lambda *_: object())
    assert farm.main(["set", "qemu-a53", "ambient_c=70", "undervoltage=1"]) == 0
    assert farm.main(["set", "qemu-a53", "ambient_c=auto", "temp_c=-5"]) == 0
    wish = empty_farm / "run/qemu-a53/shared/control.json"
    assert json.loads(wish.read_text()) == {"undervoltage": 1.0, "temp_c": -5.0}


def test_doctor_says_every_reason_and_exits_3(
    empty_farm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "problems", lambda *_: iter(["no this", "no that"]))
    assert farm.main(["doctor"]) == 3
    assert capsys.readouterr().err == "cannot: no this\ncannot: no that\n"
    monkeypatch.setattr(doctor, "problems", lambda *_: iter([]))
    assert farm.main(["doctor"]) == 0
    assert not empty_farm.exists()


def test_doctor_says_when_a_phones_packages_cannot_be_had(
    empty_farm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_apt(*_: object) -> None:
        raise FarmError("fetching Debian's package list: no network (cannot connect)")

    monkeypatch.setattr(debian, "Apt", no_apt)
    monkeypatch.setattr(debian, "mirror", lambda: "file:/a")
    for trouble in ("missing_packages", "namespace_problem"):
        monkeypatch.setattr(doctor, trouble, lambda: None)
    monkeypatch.setattr(boards, "check_address_free", lambda _: None)
    found = list(doctor.problems(Paths(empty_farm), DEFINITIONS, DEFINITIONS.select([])))
    why = "fetching Debian's package list: no network (cannot connect)"
    assert [line for line in found if "MiB" not in line] == [f"qemu-phone: trixie: {why}"]


def test_a_board_is_asked_for_the_runtimes_it_has() -> None:
    assert doctor.runtimes("armhf") == ["tflite-runtime"]
    assert doctor.runtimes("arm64") == ["onnxruntime", "ai-edge-litert", "tflite-runtime"]


def test_packages_are_plain_names() -> None:
    names = doctor.wanted_packages()
    assert "gcc" in names
    assert all(name.replace("-", "").replace("+", "").isalnum() for name in names)
