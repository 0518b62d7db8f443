"""The harness itself, proved on a widget of ten lines that is not ours."""

import pytest

pytestmark = pytest.mark.browser

TOY = """
import anywidget, time, traitlets
class Toy(anywidget.AnyWidget):
    _esm = '''
    export default {render({model, el}) {
      el.classList.add("toy"); el.dataset.points = 0;
      const c = Object.assign(document.createElement("canvas"), {width: 100, height: 50});
      const b = Object.assign(document.createElement("button"), {textContent: "Ask"});
      b.onclick = () => { model.set("asked", model.get("asked") + 1); model.save_changes(); };
      model.on("msg:custom", (m, buffers) => {
        const n = buffers[0].byteLength / 4;
        c.getContext("2d").fillRect(el.dataset.points % 100, 0, n, 50);
        el.dataset.points = +el.dataset.points + n;
      });
      el.append(c, b); el.dataset.ready = 1;
    }}'''
    asked = traitlets.Int(0).tag(sync=True)
toy = Toy()
toy
"""
SEND = """
import struct
for i in range(40):
    toy.send({}, buffers=[struct.pack("<5f", *range(5))]); time.sleep(0.05)
print("sent", i + 1)
"""


def test_lab_drives_a_widget_in_a_running_cell(open_notebook):
    nb = open_notebook([TOY, SEND, "time.sleep(60)", "print('alive', 6 * 7)"])
    nb.run(0, wait_s=30)
    nb.wait(".toy[data-ready]")
    nb.watch(".toy", "points")
    nb.run(1)
    nb.wait_data(".toy", "points", "n >= 50")
    assert nb.prompt(1) == "[*]:"
    nb.wait_done(1)
    assert nb.data(".toy", "points") == "200" and nb.output(1) == "sent 40"
    assert len(nb.seen()) > 20 and nb.ink(".toy") == 100 * 50
    nb.click(".toy button")
    nb.page.wait_for_timeout(300)
    assert nb.value("toy.asked") == 1
    nb.run(2)
    nb.page.wait_for_timeout(500)
    nb.interrupt()
    nb.wait_done(2, 10)
    assert "KeyboardInterrupt" in nb.output(2)
    nb.run(3, wait_s=10)
    assert nb.output(3) == "alive 42"
    nb.theme("dark")
    assert nb.screenshot("lab-dark").stat().st_size > 10_000
    nb.restart_kernel()
    nb.run(0, wait_s=30)
    nb.reload()
    assert nb.value("toy.asked") == 0
    nb.wait(".toy[data-ready]")


def test_lab_notices_errors_and_requests(open_notebook):
    nb = open_notebook(["1"])
    nb.page.evaluate("() => fetch('http://example.org/x').catch(() => console.error('seen'))")
    nb.page.wait_for_timeout(200)
    assert nb.foreign == ["http://example.org/x"] and any("seen" in e for e in nb.errors)
    nb.errors.clear(), nb.foreign.clear()
