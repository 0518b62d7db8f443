"""Monitor: the machine's gauges, sampled beside the training."""

import sys
import threading
import time
import types

import pytest
import torch

from nenya_nb.training.history import History
from nenya_nb.training.monitor import Gauges, Monitor


def test_gauges_on_cpu_have_sane_units():
    gauges = Gauges("cpu")
    end = time.perf_counter() + 0.15
    while time.perf_counter() < end:
        sum(range(1000))
    values = gauges.read()
    assert set(values) == {"cpu_util", "ram"}
    assert (
        0 < values["cpu_util"] <= 110 and 50 < values["ram"] < 100_000
    )  # Python with torch, in MiB


@pytest.mark.timed
def test_monitor_samples_at_its_interval_and_ends_at_once():
    history, before = History(), threading.active_count()
    with Monitor(history, interval=0.05):
        time.sleep(0.3)
    history.flush()
    assert 3 <= len(history.columns()["ram"][0]) <= 8
    assert threading.active_count() == before
    started = time.perf_counter()
    with Monitor(history, interval=60):
        pass
    assert time.perf_counter() - started < 2


def test_monitor_takes_a_last_sample_at_the_current_step():
    history = History()
    with Monitor(history, interval=60):
        history.log(17, {"loss": 0.0})
    history.flush()
    assert history.columns()["ram"][0].tolist() == [17]


def test_a_slow_sample_belongs_to_the_step_at_its_end():
    history = History()
    with Monitor(history, interval=60) as monitor:
        monitor.gauges.read = lambda: history.log(17, {"loss": 0.0}) or {"ram": 1.0}
    history.flush()
    assert history.columns()["ram"][0].tolist() == [17] and history.step == 17


def test_monitor_ends_when_the_block_raises():
    history, before = History(), threading.active_count()
    with pytest.raises(KeyError), Monitor(history, interval=60):
        raise KeyError
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_monitor_that_cannot_read_does_no_harm():
    history = History()
    monitor = Monitor(history, interval=0.01)

    def broken():
        raise OSError("no /proc here")

    monitor.gauges.read = broken
    with pytest.warns(UserWarning, match="stopped sampling"), monitor:
        time.sleep(0.1)
    assert not history._pending


class NVMLError(Exception):
    pass


def fake_nvml(known_uuid="GPU-abc", lacks_power=False):
    "A driver library with one card."

    def by_uuid(uuid):
        if uuid != known_uuid:
            raise NVMLError("not found")
        return "card by uuid"

    def power(card):
        if lacks_power:
            raise NVMLError("not supported")
        return 250_000

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetHandleByPciBusId=lambda address: f"card at {address}",
        nvmlDeviceGetUtilizationRates=lambda card: types.SimpleNamespace(gpu=93),
        nvmlDeviceGetMemoryInfo=lambda card: types.SimpleNamespace(used=3 * 2**30),
        nvmlDeviceGetTemperature=lambda card, kind: 61,
        nvmlDeviceGetPowerUsage=power,
    )


def pretend_cuda(monkeypatch, nvml, uuid="abc"):
    card = types.SimpleNamespace(uuid=uuid, pci_domain_id=0, pci_bus_id=0x1B, pci_device_id=0)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**29)


def test_gauges_of_a_card_in_units_of_people(monkeypatch):
    pretend_cuda(monkeypatch, fake_nvml())
    gauges = Gauges("cuda:0")
    values = gauges.read()
    assert gauges.nvml[1] == "card by uuid"
    found = {
        name: values[name]
        for name in ("gpu_util", "gpu_mem", "gpu_mem_peak", "gpu_temp", "gpu_power")
    }
    assert found == dict(gpu_util=93, gpu_mem=3072, gpu_mem_peak=512, gpu_temp=61, gpu_power=250)


def test_card_is_found_by_bus_address_when_the_uuid_is_unknown(monkeypatch):
    pretend_cuda(monkeypatch, fake_nvml(), uuid="something else")
    assert Gauges("cuda:0").nvml[1] == "card at 00000000:1b:00.0"


def test_a_gauge_that_a_card_lacks_is_left_out(monkeypatch):
    pretend_cuda(monkeypatch, fake_nvml(lacks_power=True))
    values = Gauges("cuda").read()
    assert "gpu_power" not in values and values["gpu_temp"] == 61


def test_without_a_driver_library_torch_counters_remain(monkeypatch):
    pretend_cuda(monkeypatch, None)  # importing None raises ImportError
    assert set(Gauges("cuda").read()) == {"cpu_util", "ram", "gpu_mem_peak"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gauges_on_a_real_card_do_not_wait_for_it():
    gauges, kept = Gauges("cuda"), torch.zeros(2**20, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        values = gauges.read()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert values["gpu_mem_peak"] >= kept.nbytes / 2**20
