from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabel.shards.errors import IdentityError
from softlabel.shards.matching import match_tars

PARTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)
PATHS = st.lists(PARTS.map("/".join), min_size=1, max_size=6, unique=True)


@given(PATHS, st.sampled_from(["", "/mirror/", "s3://bucket/deep/"]), st.randoms())
def test_a_copied_tree_matches_in_any_order_or_says_that_it_cannot(paths, root, random):
    given_order = random.sample(range(len(paths)), len(paths))
    moved = [root + paths[i] for i in given_order]
    # Only a path that is the whole end of another can be ambiguous once a root is put before.
    if any(a != b and f"/{b}".endswith(f"/{a}") for a in paths for b in paths):
        with suppress(IdentityError):
            assert match_tars(paths, moved) == given_order
    else:
        assert match_tars(paths, moved) == given_order


def test_the_shortest_suffix_decides():
    stored = ["/data/x/train.tar", "/data/y/train.tar", "/data/y/test.tar"]
    assert match_tars(stored, ["elsewhere/test.tar", "m/y/train.tar"]) == [2, 1]


@pytest.mark.parametrize(
    ("given_tars", "message"),
    [
        (["other.tar"], "no labels for it"),
        (["train.tar"], "could be any of 2"),
        (["z/train.tar"], "could be any of 2"),
        (["x/train.tar", "/n/x/train.tar"], "both the store's tar"),
    ],
)
def test_no_match_is_an_identity_error(given_tars, message):
    with pytest.raises(IdentityError, match=message):
        match_tars(["a/x/train.tar", "a/y/train.tar"], given_tars)


def test_a_secret_in_the_url_does_not_hinder_and_does_not_show():
    assert match_tars(["s3://b/t.tar"], ["https://u:p@h/b/t.tar?sig=1"]) == [0]
    with pytest.raises(IdentityError) as error:
        match_tars(["t.tar"], ["https://u:p@h/b/q.tar?sig=1"])
    assert "sig" not in str(error.value)
