"""The report: one file that stands alone, says everything, and cannot be broken by names."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from session_fakes import FakeEngine, dataset, model, result

from qstudio.core.errors import UserError
from qstudio.core.results import LayerResult, Metrics, RunResult, SizeBytes
from qstudio.engine.messages import JobState
from qstudio.session.report.charts import Point, _ticks, bars, scatter
from qstudio.session.report.page import report_html, write_report
from qstudio.session.session import Session

NASTY = "</title><script>alert(1)</script> & <img src=http://example.com/x>"


class Reader(HTMLParser):
    """Collects tags, whether they close, and addresses that would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "line", "path", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("line", "path", "circle", "rect"):
            return
        assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def measured(session: Session) -> RunResult:
    layers = tuple(
        LayerResult(name, "Conv", (("weight", "int8"),), 40.0, 0.999, sqnr, 0.99)
        for name, sqnr in (("conv1", 38.2), ("conv2", 12.5), ("fc", float("inf")))
    )
    return replace(
        result(session.recipe, 95.25),
        float=Metrics(360, 97.5, top1_interval=(95.0, 99.0)),
        size_bytes=SizeBytes(4096, 1024, 1500),
        layers=layers,
        versions=(("torch", "2.13.0"),),
        notes=("a note with <b>",),
    )


@pytest.fixture
def session() -> Session:
    engine = FakeEngine()
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model(names=(NASTY, "conv2", "fc")))
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    session.run_ptq()
    job = engine.one("RunPtq")
    engine.finish(job, measured(session), JobState.DONE)
    return session


def test_the_page_stands_alone_and_names_are_text(session: Session) -> None:
    text = report_html(session)
    reader = read(text)
    assert "script" not in reader.tags
    assert reader.loaded == []
    assert "@import" not in text
    assert "url(" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_every_figure_of_the_run_is_there(session: Session) -> None:
    text = report_html(session)
    for words in ("95.25 %", "97.50 %", "95.00 .. 99.00", "1.00 KB", "38.2 dB", "exact", "torch", "2.13.0", "360"):
        assert words in text, words
    assert "a note with &lt;b&gt;." in text
    assert session.recipe.sha256()[:12] in text
    assert "qstudio.quantize(" in text
    assert "recipe.json" in text


def test_a_session_without_runs_and_one_without_a_model(session: Session) -> None:
    empty = Session(FakeEngine())
    with pytest.raises(UserError, match="no model is open"):
        report_html(empty)
    engine = FakeEngine()
    other = Session(engine)
    other.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    text = report_html(other)
    read(text)
    assert "No run has a result yet" in text
    assert "int8 symmetric channel minmax" in text


def test_an_edit_after_the_run_is_said(session: Session) -> None:
    session.set_layers("4 bits", ("fc",), weight_bits=4)
    assert "This is the recipe of Run 1; the present one differs" in report_html(session)


def test_it_is_written_whole_or_not_at_all(session: Session, tmp_path: Path) -> None:
    target = tmp_path / "report ü.html"
    write_report(session, target)
    read(target.read_text(encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    with pytest.raises(UserError, match="was not written"):
        write_report(session, tmp_path / "no folder" / "report.html")


def test_charts_are_well_formed_and_place_points_where_they_belong() -> None:
    points = [Point(1.0, 90.0, "a < b", "measured", "1"), Point(3.0, 95.0, "c", "float", "float")]
    root = ElementTree.fromstring(scatter(points, "size, KB", "top-1, %"))
    [circle] = [part for part in root.iter() if part.tag.endswith("circle")]
    [diamond] = [part for part in root.iter() if part.tag.endswith("path")]
    x, y = (float(part) for part in diamond.attrib["d"][1:].split(" l")[0].split())
    assert float(circle.attrib["cx"]) < x
    assert float(circle.attrib["cy"]) > y
    root = ElementTree.fromstring(bars([("a" * 60, 10.0), ("b & c", 20.0), ("d", None)], "dB", "title"))
    widths = [float(part.attrib["width"]) for part in root.iter() if part.tag.endswith("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], rel=1e-3)
    assert scatter([], "x", "y") == bars([], "dB", "t") == ""


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [0.1, 0.11], [-3.0, 1e6], [1e-9, 2e-9], [99.67, 99.67, 99.5]])
def test_ticks_enclose_their_values(values: list[float]) -> None:
    ticks = _ticks(values)
    assert ticks[0] <= min(values) <= max(values) <= ticks[-1]
    assert 2 <= len(ticks) <= 10
