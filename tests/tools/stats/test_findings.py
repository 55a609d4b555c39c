"""Every warning is given where it holds, and only there."""

import numpy as np
import pytest

from softlabel.tools.stats.collect import collect
from softlabel.tools.stats.findings import label_warnings, shown

FLAT = [3.0, 2.0, 1.0, 0.0, -1.0, -2.0]


def turned(row: list[float], num_rows: int) -> np.ndarray:
    """Each class first equally often."""
    return np.stack([np.roll(row, i) for i in range(num_rows)])[:, None]


def warned(store) -> list[str]:
    return label_warnings(collect(store), class_name=lambda c: f"class {c}")


@pytest.fixture
def warnings_of(build_store, make_rows, make_manifest):
    """({tar: logits or (logits, changed arrays)}, manifest fields) -> warnings."""

    def found(tars, **changes) -> list[str]:
        m = make_manifest(**{"top_k": 5, "temperatures": (1.0,), **changes})
        rows = {}
        for number, (name, given) in enumerate(tars.items()):
            z, changed = given if isinstance(given, tuple) else (given, {})
            images = 10_000 * (number + 1) + np.arange(len(z))
            rows[name] = make_rows(m, z, **{"image_hash": images, **changed})
        return warned(build_store(rows, m))

    return found


def test_healthy_labels_have_no_warning(warnings_of):
    assert warnings_of({"a-0.tar": turned(FLAT, 120), "b-0.tar": turned(FLAT, 120)}) == []


@pytest.mark.parametrize(("saturated", "expected"), [(61, 1), (59, 0)])
def test_a_teacher_near_one_hot_is_told_from_half_of_the_labels_on(
    warnings_of, saturated, expected
):
    sure = [40.0, *FLAT[1:]]
    z = np.concatenate([turned(sure, saturated), turned(FLAT, 120 - saturated)])
    found = warnings_of({"a-0.tar": z})
    assert len(found) == expected
    if expected:
        assert found == [
            "the teacher is near one-hot: p1 > 0.999 on 51% of labels; "
            "a higher --kd-temperature says more"
        ]


def test_a_single_source_near_one_hot_is_named(warnings_of):
    sure = turned([40.0, *FLAT[1:]], 120)
    found = warnings_of({"a-0.tar": turned(FLAT, 200), "b-0.tar": sure})
    assert len(found) == 1
    assert "near one-hot on source b: p1 > 0.999 on 100%" in found[0]


@pytest.mark.parametrize(("one", "rest", "expected"), [(109, 11, 1), (108, 12, 0), (90, 0, 0)])
def test_a_source_called_one_class_is_told_where_it_is_large(warnings_of, one, rest, expected):
    z = np.concatenate([turned(FLAT, 6 * one)[::6], turned(FLAT, 6 * rest + 1)[1::6]])
    found = warnings_of({"a-0.tar": z, "b-0.tar": turned(FLAT, 120)})
    assert [line.partition(";")[0] for line in found] == [
        "91% of source a is called `class 0`"
    ] * expected


@pytest.mark.parametrize(("copies", "expected"), [(7, 1), (6, 0)])
def test_exact_duplicates_are_told_from_one_in_twenty_on(warnings_of, copies, expected):
    images = np.arange(120)
    images[:copies] = 119
    found = warnings_of({"a-0.tar": (turned(FLAT, 120), {"image_hash": images})})
    assert found == ["6% of source a are exact duplicates"] * expected


@pytest.mark.parametrize(("common", "expected"), [(7, 2), (6, 0)])
def test_images_that_two_sources_have_are_told(warnings_of, common, expected):
    a, b = np.arange(120), 1000 + np.arange(120)
    b[:common] = a[:common]
    z = turned(FLAT, 120)
    found = warnings_of({"a-0.tar": (z, {"image_hash": a}), "b-0.tar": (z, {"image_hash": b})})
    assert len(found) == expected
    assert all("6% of source" in line and "in other sources" in line for line in found)


@pytest.mark.parametrize(
    ("temperatures", "expected"), [((1.0, 4.0), 1), ((1.0,), 0), ((1.0, 8.0), 0), ((8.0,), 0)]
)
def test_a_large_tail_is_told_at_the_temperatures_of_recipes(warnings_of, temperatures, expected):
    found = warnings_of({"a-0.tar": turned(FLAT, 120)}, temperatures=temperatures, top_k=3)
    p = np.exp(np.array(FLAT) / 4)
    mean = p[3:].sum() / p.sum()
    assert len(found) == expected
    if expected:
        assert found[0].startswith(f"mean tail {mean:.0%} at T = 4: K of at least ")
        assert "under 5%" in found[0]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([3], "source a: 1 image could not be labelled (1 undecodable)"),
        ([3, 2, 2], "source a: 3 images could not be labelled (2 no image, 1 undecodable)"),
    ],
)
def test_images_that_could_not_be_labelled_are_told_however_few(warnings_of, statuses, expected):
    status = np.ones(120)
    status[: len(statuses)] = statuses
    assert warnings_of({"a-0.tar": (turned(FLAT, 120), {"status": status})}) == [expected]


def test_many_warnings_of_one_kind_are_five_and_a_count(warnings_of):
    status = np.append(np.ones(5), 3)
    tars = {f"{c}-0.tar": (turned(FLAT, 6), {"status": status}) for c in "abcdefgh"}
    found = warnings_of(tars)
    assert len(found) == 6
    assert found[-1] == "3 more sources have images that could not be labelled; --json has them"


def test_names_can_not_steer_a_terminal():
    assert shown("a\x1b[31m\nb") == "a?[31m?b"
    assert shown("n" * 60) == "n" * 37 + "..."
