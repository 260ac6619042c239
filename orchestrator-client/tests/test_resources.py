"""Resources of the machine: found, shared out to payloads, and limited."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from job_orchestrator.client.executors.local.cgroups.payload_cgroups import (
    FOR_SHARES,
    open_cgroups,
)
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.executors.machine import (
    Machine,
    find_machine,
    usable_cpus,
    usable_memory_bytes,
    visible_gpus,
)
from job_orchestrator.client.model import Limits, Share
from job_orchestrator.client.settings import read_settings
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.messages.resources import Resources, resources_of
from running_client import StartClient

amounts = st.builds(
    Resources,
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.sampled_from([0, 10**6, 10**7]),
    st.integers(0, 3),
)


@given(amounts)
def test_fields_of_a_form_keep_what_a_job_asks_for(wanted: Resources) -> None:
    assert resources_of({name: [text] for name, text in wanted.fields()}) == wanted


class SharingMachine(RuleBasedStateMachine):
    """Payloads that start in order and end in any, as the runner does it."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(4.0, 2 * 10**7, (0, 2, 5))
        self.running: dict[int, Share] = {}
        self.number = 0

    @rule(wanted=st.lists(amounts, max_size=6))
    def start_those_that_fit(self, wanted: list[Resources]) -> None:
        fitting = self.machine.count_fitting(wanted)
        for each in wanted[:fitting]:
            self.number += 1
            share = self.machine.take(self.number, each)
            assert share.amounts == each
            self.running[self.number] = share
        if fitting < len(wanted):
            assert not self.machine.offer.less(self.machine.used).hold(wanted[fitting])

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.running:
            payload = data.draw(st.sampled_from(sorted(self.running)))
            self.machine.release(payload)
            del self.running[payload]

    @invariant()
    def no_gpu_belongs_to_two_payloads(self) -> None:
        held = [gpu for share in self.running.values() for gpu in share.gpus]
        assert len(held) == len(set(held))
        assert set(held) <= {0, 2, 5}

    @invariant()
    def no_more_is_used_than_the_machine_has(self) -> None:
        used = sum((share.amounts for share in self.running.values()), start=Resources())
        assert self.machine.offer.hold(used)
        assert self.machine.used == used


TestSharingMachine = SharingMachine.TestCase


def test_nvidia_devices_are_found_without_a_library(tmp_path: Path) -> None:
    devices, driver = tmp_path / "dev", tmp_path / "driver"
    assert visible_gpus(devices, driver) == 0
    for bus in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (driver / "gpus" / bus).mkdir(parents=True)
    devices.mkdir()
    (devices / "nvidiactl").touch()
    (devices / "nvidia-uvm").touch()
    assert visible_gpus(devices, driver) == 3
    # A container has the nodes of its own devices only, and sees all others in /proc.
    (devices / "nvidia4").touch()
    assert visible_gpus(devices, driver) == 1


def test_machine_offers_what_jo_client_may_use() -> None:
    assert usable_cpus() > 0
    assert usable_memory_bytes() > 2**24
    found = find_machine(None, None, (1,))
    assert found.offer == Resources(usable_cpus(), usable_memory_bytes(), 1)
    assert find_machine(0.0, 0, ()).offer == Resources()
    settings = read_settings({"CPUS": "3.5", "MEMORY": "8GB", "GPUS": "1,3"}, {})
    assert (settings.cpus, settings.memory_bytes, settings.gpus) == (3.5, 8 * 10**9, (1, 3))
    assert read_settings({"GPUS": "none"}, {}).gpus == ()


@pytest.mark.parametrize("text", ["two", "1,1", "0;1", "-1", ","])
def test_gpus_that_are_no_indices_are_refused(text: str) -> None:
    with pytest.raises(StartupError, match="GPUS"):
        read_settings({"GPUS": text}, {})


ENVIRONMENT = 'echo "${CUDA_VISIBLE_DEVICES-all}/${OMP_NUM_THREADS-unset}" > output\n'


async def output_of(start_client: StartClient, fields: list[tuple[str, str]]) -> str:
    client = await start_client(CPUS="4", MEMORY="2GB", GPUS="1,3")
    payload = await client.submit(ENVIRONMENT, fields=fields)
    await client.until(payload, "Completed")
    return (await client.archive(payload)).read("output").decode()


async def test_script_sees_its_gpus_and_its_number_of_threads(start_client: StartClient) -> None:
    assert await output_of(start_client, [("gpus", "2"), ("cpus", "2.5")]) == "1,3/2\n"


async def test_script_that_asks_for_memory_only_has_no_gpu(start_client: StartClient) -> None:
    assert await output_of(start_client, [("memory", "100000000")]) == "/unset\n"


async def test_script_that_asks_for_nothing_sees_what_the_machine_has(
    start_client: StartClient,
) -> None:
    assert await output_of(start_client, []) == "all/unset\n"


async def test_second_payload_waits_for_the_gpu_of_the_first(start_client: StartClient) -> None:
    client = await start_client(CPUS="4", GPUS="0", SLOTS="4")
    first = await client.submit("until [ -e go ]; do sleep 0.02; done", fields=[("gpus", "1")])
    await client.until(first, "Running")
    second = await client.submit("true", fields=[("gpus", "1")])
    behind = await client.submit("true")
    assert [(await client.get(each))["status"] for each in (second, behind)] == ["Prepared"] * 2
    await client.kill(first)
    for payload in (second, behind):
        await client.until(payload, "Completed")


async def test_payload_that_asks_for_more_than_the_machine_has_goes_elsewhere(
    start_client: StartClient,
) -> None:
    client = await start_client(CPUS="2", GPUS="0")
    status, answer = await client.post("true", fields=[("gpus", "2")])
    assert status == 503
    assert "has 2 CPUs" in answer["message"]
    assert "asks for 2 GPUs" in answer["message"]


def test_limits_are_what_was_asked_for_but_never_above_those_of_the_client() -> None:
    limits = Limits(memory_bytes=1000, pids=7, cpus=0.0)
    assert limits.within(Share(2.0, 500)) == Limits(500, 7, 2.0)
    assert limits.within(Share(0.0, 5000)) == Limits(1000, 7, 0.0)
    assert limits.within(Share()) == limits


def test_cgroup_of_a_payload_has_the_limits_that_it_asked_for(tmp_path: Path) -> None:
    cgroups = open_cgroups(ExecutionSettings(), tmp_path)
    if cgroups is None or not cgroups.controllers >= FOR_SHARES:
        pytest.skip("limits can't be set here")
    try:
        plain = cgroups.create("plain")
        assert len(plain.cgroups) == 1
        assert plain.remove()
        created = cgroups.create("wide", Share(1.5, 64 * 2**20))
        texts = {
            file.name: file.read_text().strip()
            for cgroup in created.cgroups
            for file in cgroup.folder.iterdir()
            if file.name in ("cpu.max", "memory.max", "cpu.cfs_quota_us", "memory.limit_in_bytes")
        }
        assert created.remove()
    finally:
        cgroups.close()
    assert texts.get("cpu.max", texts.get("cpu.cfs_quota_us", "")).split()[0] == "150000"
    assert texts.get("memory.max", texts.get("memory.limit_in_bytes")) == str(64 * 2**20)
