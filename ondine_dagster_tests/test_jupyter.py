"""`enrich` in a real kernel of Jupyter: a bar, the answers, an interrupt."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import declaration

nbclient = pytest.importorskip("nbclient", reason="pip install 'ondine_dagster[jupyter]'")
pytest.importorskip("ipykernel", reason="pip install 'ondine_dagster[jupyter]'")

pytestmark = pytest.mark.slow

_PATIENCE_SECONDS = 60
IMPORTS = "import pandas as pd\nfrom ondine_dagster import enrich"
CALL = """labelled = enrich(pd.DataFrame({{"text": [f"row {{n}}" for n in range({rows})]}}),
    prompt="{{{{ text }}}}", fields={{"mood": ["good", "bad"]}}, llm={llm!r}, budget_usd=1{more})
print(labelled["mood"].notna().sum())"""


class Notebook:
    """A notebook with a kernel of its own; `runs` adds a cell and returns its outputs."""

    def __init__(self, folder: Path) -> None:
        import nbformat

        self._cells = nbformat.v4
        self.book = nbformat.v4.new_notebook()
        self.client = nbclient.NotebookClient(
            self.book, timeout=2 * _PATIENCE_SECONDS, resources={"metadata": {"path": str(folder)}}
        )

    def runs(self, code: str) -> list[Any]:
        cell = self._cells.new_code_cell(code)
        self.book.cells.append(cell)
        self.client.execute_cell(cell, len(self.book.cells) - 1)
        return list(cell.outputs)


@pytest.fixture
def llm(simulator: Simulator) -> dict[str, Any]:
    return dict(declaration(simulator)["llm"])


def bars(outputs: list[Any]) -> list[str]:
    return [one["data"]["text/plain"] for one in outputs if one["output_type"] == "display_data"]


def text_of(outputs: list[Any]) -> str:
    return "".join(one["text"] for one in outputs if one["output_type"] == "stream")


def test_a_cell_shows_a_bar_and_the_answers_and_a_sample_is_not_paid_twice(
    tmp_path: Path, simulator: Simulator, llm: dict[str, Any]
) -> None:
    notebook = Notebook(tmp_path)
    with notebook.client.setup_kernel():
        notebook.runs(IMPORTS)
        sample = notebook.runs(CALL.format(rows=30, llm=llm, more=", sample=20"))
        assert text_of(sample).splitlines()[-1] == "20"
        assert simulator.bill.totals.charged == 20
        # top-level await proves that the kernel's event loop runs while the cell does
        awaiting = "import asyncio\nawait asyncio.sleep(0)\n"
        whole = notebook.runs(awaiting + CALL.format(rows=30, llm=llm, more=""))
    (bar,) = bars(whole)
    assert "10 of" in bar or "30 of" in bar
    assert "30 rows answered, 0 not; 10 requests" in text_of(whole)
    assert not [one for one in whole if one.get("name") == "stderr"], whole
    assert "<progress" in next(
        one["data"]["text/html"] for one in whole if one["output_type"] == "display_data"
    )
    assert simulator.bill.totals.charged == 30


def test_interrupting_the_kernel_keeps_what_is_paid(
    tmp_path: Path, simulator: Simulator, llm: dict[str, Any]
) -> None:
    simulator.hold()
    notebook = Notebook(tmp_path)
    call = CALL.format(rows=4, llm=llm, more=", limits={'concurrency': 2}")

    def press() -> None:
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 2, _PATIENCE_SECONDS)
        os.kill(kernel, signal.SIGINT)
        simulator.release()

    with notebook.client.setup_kernel():
        (shown,) = notebook.runs(f"{IMPORTS}\nimport os\nprint(os.getpid())")
        kernel = int(shown["text"])
        person = threading.Thread(target=press)
        person.start()
        outputs = notebook.runs(
            f"try:\n    pass\n    {call.replace(chr(10), chr(10) + '    ')}\n"
            "except KeyboardInterrupt:\n    print('stopped')"
        )
        person.join()
        assert text_of(outputs).splitlines()[-1] == "stopped"
        assert simulator.bill.totals.charged == 2
        again = notebook.runs(call)
    assert text_of(again).splitlines()[-1] == "4"
    assert simulator.bill.totals.charged == 4
