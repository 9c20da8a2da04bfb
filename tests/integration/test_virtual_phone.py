"""The emulated phone itself: what it says it is, its cable, its adbd, its storage.

It is asked without adb's own server, so that what is seen is the phone's doing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from infra.virtual_farm import adbclient, farm
from infra.virtual_farm.board import answers
from infra.virtual_farm.config import FarmError, load_definitions

pytestmark = pytest.mark.phone

PHONE = load_definitions().boards["qemu-phone"]
LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def left_as_it_was() -> Iterator[None]:
    yield
    every = ("cable", "adbd", "temp_c", "battery", "plugged", "sensor_missing")
    assert farm.main(["set", PHONE.name, *(f"{key}=auto" for key in every)]) == 0
    assert eventually(lambda: answers(PHONE))


def shell(command: str, timeout_s: float = LIMIT_S) -> str:
    return adbclient.shell(PHONE.address, PHONE.port, command, timeout_s)


def eventually(holds: Callable[[], bool]) -> bool:
    """Tell whether something comes true before the patience ends."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def test_it_is_an_arm64_phone_of_a_class_of_its_own() -> None:
    said = shell("uname -m; id -un; pwd; getprop ro.product.cpu.abi; cat /etc/assay-board.json")
    assert said.split("\n")[:4] == ["aarch64", "shell", "/", "arm64-v8a"]
    assert '"class": "qemu-phone"' in said
    assert '"emulated": true' in said


def test_its_shell_may_write_where_androids_may_and_is_refused_the_rest() -> None:
    said = shell(
        "cd /data/local/tmp && echo kept > mine.$$ && cat mine.$$; rm mine.$$; "
        "touch /system/x /data/x /x; cat /sys/class/thermal/thermal_zone0/temp; "
        "cat /sys/devices/system/cpu/possible; ls -d /dev/shm /tmp"
    )
    assert said.startswith("kept\n")
    assert "0-3\n" in said
    assert said.count("ermission denied") == 4
    assert said.count("No such file or directory") == 2


def test_it_has_no_network_but_the_cable() -> None:
    said = shell("cat /proc/net/dev | tail -n +3; cat /proc/net/route | tail -n +2")
    assert [line.split(":")[0].strip() for line in said.splitlines()] == ["lo"]


def test_dumps_follow_what_is_set() -> None:
    assert farm.main(["set", PHONE.name, "temp_c=45", "battery=9", "plugged=0"]) == 0
    assert eventually(lambda: "level: 9\n" in shell("dumpsys battery"))
    assert "USB powered: false" in shell("dumpsys battery")
    assert "mValue=45.000, mType=3, mName=skin, mStatus=2" in shell("dumpsys thermalservice")
    assert farm.main(["set", PHONE.name, "sensor_missing=1"]) == 0
    assert eventually(lambda: "HAL Ready: false" in shell("dumpsys thermalservice"))


def test_a_pulled_cable_is_silence_until_it_is_plugged_in() -> None:
    assert farm.main(["set", PHONE.name, "cable=0"]) == 0
    with pytest.raises(TimeoutError):
        shell("echo never", timeout_s=1.0)
    assert farm.main(["set", PHONE.name, "cable=1"]) == 0
    assert shell("echo again") == "again\n"


def test_a_killed_adbd_takes_its_commands_along_and_comes_back() -> None:
    # In a session of its own, so that the end of the shell's is not its end.
    own = "setsid sh -c 'echo $$ > $TMPDIR/child; exec sleep 4711' </dev/null >/dev/null 2>&1 &"
    pid = shell(f"{own} until [ -s $TMPDIR/child ]; do sleep 0.1; done; cat $TMPDIR/child").strip()
    look = f"[ -d /proc/{pid} ] && echo there; rm -f $TMPDIR/child"
    assert pid.isdigit()
    assert shell(look) == "there\n"
    assert farm.main(["kick", PHONE.name]) == 0
    assert eventually(lambda: answers(PHONE))
    assert shell(look) == ""


def test_a_stopped_adbd_stays_away_until_it_is_started() -> None:
    assert farm.main(["set", PHONE.name, "adbd=0"]) == 0
    with pytest.raises((FarmError, OSError)):
        shell("true", timeout_s=10.0)
    assert farm.main(["set", PHONE.name, "adbd=1"]) == 0
    assert eventually(lambda: answers(PHONE))


def test_its_storage_can_be_full_and_empty_again() -> None:
    spec = PHONE.phone
    assert spec is not None
    size = (spec.data_mb + 1) * 2**20
    said = shell(f"cd /data/local/tmp; head -c {size} /dev/zero > full.$$; rm full.$$; df .")
    assert "No space left on device" in said
    assert "100%" not in said
