"""kd-store stats as a whole: its lines, JSON, errors, and a page that is safe and has pictures."""

import json
import re
import subprocess
import sys
import tarfile
from html.parser import HTMLParser

import numpy as np
import pytest

from softlabel.shards import commandline
from softlabel.shards.errors import IdentityError
from softlabel.shards.hashing import image_hash, key_hash
from softlabel.tools import store_cli
from softlabel.tools.report.distributions import bars, step_histograms
from softlabel.tools.stats.collect import collect
from softlabel.tools.stats.page import stats_page
from softlabel.tools.stats.pictures import tars_at_hand, thumbnails

EVIL = '<img src=x onerror="alert(1)">'


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as stop:
        commandline.main("kd-store", store_cli.DESCRIPTION, store_cli.Command, store_cli.run, argv)
    return int(stop.value.code or 0)


@pytest.fixture
def labelled(tmp_path, build_store, make_rows, make_manifest, dense, write_tar, encode_image):
    """Two tars of 20 real images; class 0 has a hostile name; one source too, by json."""
    m = make_manifest(class_names=(EVIL, "owl", "fox", "cow", "ant", "bee"))
    tars = {}
    for t, name in enumerate(("birds", "beasts")):
        files = []
        for i in range(20):
            size = 200 if i == 3 else 16
            data = encode_image(100 * t + i, height=size, width=size)
            files.append((f"{name}/{i}.png", data))
            files.append((f"{name}/{i}.json", json.dumps({"s": EVIL if i % 2 else "b"}).encode()))
        path = write_tar(tmp_path / f"{name}-0000.tar", files)
        with tarfile.open(path) as tar:
            found = [member for member in tar.getmembers() if member.name.endswith(".png")]
        images = [data for name, data in files if name.endswith(".png")]
        tars[str(path)] = make_rows(
            m,
            dense(20, seed=t),
            key_hash=[key_hash(member.name[:-4]) for member in found],
            image_hash=[image_hash(data) for data in images],
            offset=[member.offset_data for member in found],
            size=[member.size for member in found],
        )
    tars[str(tmp_path / "pending-0000.tar")] = None
    return build_store(tars, m)


class Elements(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_table_has_a_line_a_source_and_then_what_the_figures_do_not_say(labelled, capsys):
    assert run("stats", str(labelled.path)) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("sources "))
    assert lines[head] == (
        "sources    by name, the most effective classes first; means over all labels"
    )
    words = [line.split() for line in lines[head + 1 : head + 4]]
    assert words[0][:4] == ["source", "images", "classes", "p1"]
    collection = collect(labelled)
    for found, source in zip(words[1:], collection.sources, strict=True):
        assert found[:3] == [source.name, "20", f"{source.effective_classes:.1f}"]
        assert found[3] == f"{source.mean('p1'):.3f}"
    assert "confidence is no measure of how related" in lines[-1]


def test_json_is_strict_and_the_same_each_time(labelled, capsys):
    said = []
    for _ in range(2):
        assert run("stats", str(labelled.path), "--json", "--source-by", "json:s") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    stats = json.loads(said[0], parse_constant=pytest.fail)
    assert stats["source_by"] == "json:s"
    assert {source["source"] for source in stats["sources"]} == {EVIL, "b"}
    assert [tar["rows"] for tar in stats["by_tar"]] == [20, 20]
    assert all(sum(s["class_histogram"].values()) == 20 for s in stats["sources"])
    assert set(stats["sources"][0]["p1"]) == {"mean", "q05", "q25", "q50", "q75", "q95"}


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--source-by", "folder"), 2, "wanted name, tar, path:REGEX, key:REGEX or json:FIELD"),
        (("--source-by", "path:"), 2, "the pattern is empty"),
        (("--source-by", "path:nothing(x)"), 2, "matches none of the 3 tars"),
        (("--shards", "{folder}/none.tar"), 2, "not found"),
        (("--shards", "{folder}/other.tar"), 4, "the store has no labels for it"),
        (("--html", "{folder}/none/page.html"), 2, "wanted a file in a folder that exists"),
        (("--html", "{folder}"), 2, "wanted a file in a folder that exists"),
        (("--source-by", "key:(.*)/", "--shards", "{folder}/birds-0000.tar"), 2, "--shards"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(
    labelled, tmp_path, write_tar, capsys, flags, code, message
):
    write_tar(tmp_path / "other.tar", [("a.png", b"x")])
    given = [flag.replace("{folder}", str(tmp_path)) for flag in flags]
    assert run("stats", str(labelled.path), *given) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_store_without_a_labelled_tar_says_so(build_store, tmp_path, capsys):
    store = build_store({"a-0000.tar": None})
    page = tmp_path / "page.html"
    assert run("stats", str(store.path), "--html", str(page)) == 0
    assert "sources    none: no tar is labelled yet" in capsys.readouterr().out
    assert "No image is labelled yet." in page.read_text()


def test_the_page_has_tables_figures_and_pictures_and_nothing_of_a_name_becomes_markup(
    labelled, tmp_path, capsys
):
    page = tmp_path / "page.html"
    assert run("stats", str(labelled.path), "--source-by", "json:s", "--html", str(page)) == 0
    document = page.read_text()
    found = Elements(document)
    assert EVIL in found.text
    tags = [tag for tag, _ in found.found]
    assert "script" not in tags
    assert tags.count("svg") == 4 + 2
    images = [attributes for tag, attributes in found.found if tag == "img"]
    assert len(images) == 2 * 2 * 8
    assert all((one["src"] or "").startswith("data:image/png;base64,") for one in images)
    assert not any(name.startswith("on") for _, attributes in found.found for name in attributes)
    assert not re.search(r"https?://|@import|javascript:", document)
    assert "Confidence is no measure of how related an image is" in document
    assert str(page) in capsys.readouterr().out


def test_the_contact_sheet_shows_the_surest_images_in_order(labelled):
    found = {source.name: source for source in collect(labelled).sources}["birds"]
    rows = labelled.read(0)
    head = np.exp(rows["topk_logit"][:, 0].astype(float)).sum(1)
    p1 = 1 / (head + np.exp(rows["tail_lse"][:, 0, 0].astype(float)))
    order = np.argsort(-p1)
    assert [pick.row for pick in found.extremes.most] == order[:8].tolist()
    assert [pick.row for pick in found.extremes.least] == order[::-1][:8].tolist()
    shown = thumbnails(
        labelled, found.extremes.most, tars_at_hand(labelled, ()), class_name=lambda c: f"c{c}"
    )
    assert [one.detail for one in shown] == [f"{p:.1%}" for p in p1[order[:8]]]
    assert all(max(one.pixels.shape[:2]) <= 96 for one in shown)


def test_without_the_tars_there_is_a_page_without_pictures(labelled, tmp_path):
    for tar in tmp_path.glob("*.tar"):
        tar.unlink()
    document = stats_page(labelled, collect(labelled), urls=tars_at_hand(labelled, ()))
    assert "<img" not in document
    assert "Distributions" in document


def test_tars_that_moved_are_found_by_shards_and_other_bytes_are_refused(labelled, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for tar in tmp_path.glob("*s-0000.tar"):
        tar.rename(moved / tar.name)
    urls = tars_at_hand(labelled, (str(moved),))
    picks = [pick for source in collect(labelled).sources for pick in source.extremes.most]
    assert len(thumbnails(labelled, picks, urls, class_name=str)) == 16
    assert thumbnails(labelled, picks, tars_at_hand(labelled, ()), class_name=str) == []
    for tar in moved.iterdir():
        tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(IdentityError, match="not the bytes that were labelled"):
        thumbnails(labelled, picks, urls, class_name=str)


def test_a_page_with_pictures_loads_no_torch(labelled, tmp_path):
    program = (
        "import sys\n"
        "from softlabel.tools import store_cli\n"
        "try:\n    store_cli.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('LOADED', *{'torch', 'torchvision', 'webdataset'} & set(sys.modules))\n"
    )
    page = tmp_path / "page.html"
    command = [sys.executable, "-c", program, "stats", str(labelled.path), "--html", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"
    assert page.read_text().count("<img") == 32


def test_step_histograms_and_bars_take_any_names_and_values():
    names = ["$a$", "<b>", "日本", "z" * 60]
    for values in (np.zeros(3), np.array([1.0]), np.zeros(0)):
        drawing = step_histograms(dict.fromkeys(names, values), label="energy")
        assert "<svg" in drawing
        assert "<b>" not in drawing
    drawing = bars(names, [0.1, 0.2, 0.3, 0.4], title="<t>", label="share", colour="#3b82c4")
    assert "<t>" not in drawing
