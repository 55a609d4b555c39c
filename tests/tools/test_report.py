"""Report pieces: whole by themselves, safe whatever stands in a name, and true to their numbers."""

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from softlabel.tools.report import figures, page
from softlabel.tools.report.gallery import LARGEST, Card, Guess, data_uri, gallery
from softlabel.tools.report.style import STYLE
from softlabel.tools.report.training import read_metrics, training_curves

EVIL = '<script>alert("1")</script>'


class Elements(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "img", "br", "use"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def small_figures() -> list[str]:
    rng = np.random.default_rng(0)
    names = [EVIL, "$a$ and $b$", "日本語", "z" * 60]
    return [
        figures.histogram({"student": rng.random(9), "other": rng.random(5)}, label="confidence"),
        figures.reliability_diagram(
            "teacher", confidence=np.array([0.2, 0.7]), accuracy=np.array([0.3, 0.5]),
            count=np.array([3, 4]),
        ),
        figures.class_bars(names, {"student": rng.random(4), "control": rng.random(4)}, label="l"),
        figures.curves({"loss": {"a": ([1, 2], [3.0, 2.0])}, "x": {"b": ([1, 2], [0, 1])}},
                       x_label="images"),
        figures.scatter(
            "student", x=rng.random(6), y=rng.random(6), line=(0.5, 1.0), x_label="a", y_label="b"
        ),
        figures.roc_curves({EVIL: ([0, 0.5, 1], [0, 0.9, 1]), "student": ([0, 1], [0, 1])}),
    ]  # fmt: skip


def whole_page() -> str:
    card = Card(
        pixels=np.zeros((4, 4, 3), np.uint8),
        place=EVIL,
        guesses=[("teacher", [Guess(name=EVIL, probability=0.5)]), (EVIL, [])],
        target=EVIL,
    )
    return page.page(
        EVIL,
        page.section(
            EVIL,
            page.paragraph(EVIL),
            page.bullets([EVIL]),
            page.table([EVIL, EVIL], [[EVIL, EVIL]]),
            page.facts([(EVIL, EVIL)]),
            page.tiles([(EVIL, EVIL, EVIL)]),
            page.folded(EVIL, page.paragraph(EVIL)),
            page.side_by_side([page.figure(page.Markup(d), EVIL) for d in small_figures()]),
            gallery([card]),
        ),
        subtitle=EVIL,
    )


@pytest.fixture(scope="module")
def document() -> str:
    return whole_page()


def test_nothing_that_comes_in_as_text_becomes_markup(document):
    found = Elements(document)
    assert "script" not in found.tags
    assert not found.open
    assert found.text.count(EVIL) >= 18


def test_a_page_loads_nothing_and_runs_nothing(document):
    assert not re.search(r"https?://|@import|javascript:", document)
    for name, value in Elements(document).attributes:
        assert not name.startswith("on")
        if name in {"src", "href"}:
            assert value is not None
            assert value.startswith(("data:", "#"))
    assert all("url(#" in use for use in re.findall(r"url\([^)]*\)?", document))


@given(st.text())
@settings(max_examples=50)
def test_any_text_becomes_valid_unicode_with_its_printable_characters(value):
    shown = Elements(page.text(value)).text
    shown.encode("utf-8")
    expected = [c if c.isprintable() or c in "\n\t" else "?" for c in value]
    assert shown.replace("\r", "") == "".join(expected)


def test_undecodable_bytes_of_a_file_name_do_not_break_the_page():
    name = b"im\xff.png".decode("utf-8", "surrogateescape")
    assert page.page(name).encode("utf-8").count(b"im?.png") == 2


def test_a_table_has_a_row_header_and_each_cell_once():
    found = Elements(page.table(["", "a"], [["x", 1], ["y", 2]]))
    assert found.tags.count("td") == 2
    assert found.tags.count("th") == 4
    assert "".join(found.text.split()) == "ax1y2"


@pytest.mark.parametrize("number", range(4))
def test_a_figure_is_whole_xml_with_text_as_text_and_a_spoken_label(number):
    drawing = small_figures()[number]
    root = ElementTree.fromstring(drawing)
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    assert len(list(root.iter("text"))) > 4


def test_ids_of_two_figures_on_a_page_never_meet(document):
    ids = re.findall(r'\bid="([^"]*)"', document)
    assert len(ids) > 20
    assert len(ids) == len(set(ids))
    links = re.findall(r'(?:href="|url\()#([^")]*)', document)
    assert set(links) <= set(ids)


def test_equal_figures_are_equal_bytes():
    assert small_figures() == small_figures()


def test_figures_take_their_colours_from_the_page_in_light_and_dark():
    drawing = small_figures()[2]
    assert "var(--student)" in drawing
    assert "<style" not in drawing
    assert set(re.findall(r"font-family: ([^;]*);", drawing)) == {"inherit"}
    assert "currentColor" in drawing
    for name in (figures._INK, figures._SOFT, figures._LINE, *figures.PALETTE.values()):
        assert name not in drawing
    light, _, dark = STYLE.partition("prefers-color-scheme: dark")
    for role, colour in figures.PALETTE.items():
        assert f"--{role}: {colour}" in light
        assert f"--{role}: #" in dark


def test_class_names_stand_in_a_figure_as_they_are_but_short():
    texts = ["".join(t.itertext()) for t in ElementTree.fromstring(small_figures()[2]).iter("text")]
    assert EVIL in texts
    assert "$a$ and $b$" in texts
    assert "日本語" in texts
    assert "z" * 27 + "…" in texts


def test_reliability_bars_are_as_high_as_the_accuracy():
    drawing = figures.reliability_diagram(
        "student", confidence=np.array([0.25, 0.75]), accuracy=np.array([0.2, 0.8]),
        count=np.array([1, 1]),
    )  # fmt: skip
    bar_path = r'<path d="M ([^z]*)z\s*" clip-path="[^"]*" style="fill: var\(--student\)'
    bars = re.findall(bar_path, drawing)
    heights = []
    for bar in bars:
        values = [float(v) for v in re.findall(r"-?[\d.]+", bar)]
        heights.append(max(values[1::2]) - min(values[1::2]))
    assert heights[1] / heights[0] == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize(("size", "expected"), [((5, 3), (5, 3)), ((600, 300), (192, 96))])
def test_an_image_is_kept_exactly_if_small_and_fits_if_large(size, expected):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    data = base64.b64decode(data_uri(pixels).removeprefix("data:image/png;base64,"))
    image = Image.open(io.BytesIO(data))
    assert image.size == expected
    if max(size) <= LARGEST:
        assert (np.asarray(image) == pixels).all()


def test_small_images_are_enlarged_without_smoothing_and_large_ones_are_not():
    def markup(side):
        pixels = np.zeros((side, side, 3), np.uint8)
        return gallery([Card(pixels=pixels, place="p", guesses=[])])

    assert 'class="small"' in markup(32)
    assert 'class="small"' not in markup(150)
    assert ".card img.small { image-rendering: pixelated; }" in STYLE


def test_a_guess_shows_name_probability_and_whether_it_is_right():
    guesses = [Guess(name="cat", probability=0.756, is_right=True)]
    markup = gallery([Card(pixels=np.zeros((2, 2, 3), np.uint8), place="p",
                           guesses=[("student", guesses)], target="cat")])  # fmt: skip
    assert 'class="guess right"' in markup
    assert "width: 76%; background: var(--student)" in markup
    assert "cat76%" in Elements(markup).text


METRICS = "step,epoch,images,loss,kd_loss,task_loss,agreement,lr,images_per_s,data_wait\n"


@pytest.mark.parametrize("torn", ["3,0,19", "3,0,192,1,1,0,", "3,0,192,1,1,0,0.7e"])
def test_training_curves_come_from_the_rows_that_are_whole(tmp_path, torn):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS + "1,0,64,2.5,2,0,0.25,0,0,0\n2,0,128,1.5,1,0,0.5,0,0,0\n" + torn)
    found = read_metrics(path)
    assert found == {"images": [64, 128], "loss": [2.5, 1.5], "agreement": [0.25, 0.5]}
    drawing = training_curves({"student": path, "control": tmp_path / "none.csv"})
    assert drawing is not None
    assert "control" not in drawing


def test_without_two_rows_there_is_no_curve(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS + "1,0,64,2.5,2,0,0.25,0,0,0\n2,0,128,nan,1,0,0.5,0,0,0\n")
    assert training_curves({"student": path, "other": tmp_path / "none.csv"}) is None
