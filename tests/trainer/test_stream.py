"""Batches: the right pixels beside the right labels, in order, whatever the threads do."""

import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabel.shards.decoders import open_decoder
from softlabel.shards.errors import IdentityError, ImageError, MachineError
from softlabel.shards.hashing import key_hash
from softlabel.shards.status import Status
from softlabel.shards.views import view
from softlabel.trainer.assembly import (
    make_loader,
    make_renderer,
    make_settings,
    open_decoder_of,
)
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.plan import Plan, make_plan
from softlabel.trainer.rendering import Renderer
from softlabel.trainer.stream import Batch, stream

RECIPE = {
    "input_size": [3, 16, 16],
    "interpolation": "bicubic",
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def plan_for(collection, tmp_path: Path, **flags) -> Plan:
    options = {"student": "softlabel/small-cnn", "batch_size": 8, "epochs": 2, "workers": 2}
    return make_plan(
        TrainConfig(
            shards=tuple(map(str, collection.tars)),
            labels=collection.labels,
            output=tmp_path / "out",
            **{**options, **flags},
        )
    )


def batches(plan: Plan, *, first_step: int = 0, decoder=None, recipe=None) -> Iterator[Batch]:
    loader = make_loader(plan)
    chosen = decoder or open_decoder("pillow", max_pixels=10**6)
    renderer = make_renderer(plan, recipe or plan.recipe, chosen, loader.files)
    settings = make_settings(plan, torch.device("cpu"))
    with stream(loader, renderer, settings, first_step=first_step, ended=lambda: False) as found:
        yield from found


def direct(collection, plan: Plan, batch: Batch, i: int, *, size: int, shown: dict) -> np.ndarray:
    """The pixels of row i by decoding its file, found by name, and rendering the view."""
    tar, member = int(batch.rows.tar[i]), int(batch.rows.member[i])
    with tarfile.open(collection.tars[tar]) as archive:
        image = [m for m in archive.getmembers() if m.name.endswith(".png")][member]
        data = archive.extractfile(image).read()
    decoder = open_decoder("pillow", max_pixels=10**6)
    picture = decoder.decode(data)
    recipe = plan.recipe
    box = view(
        key_hash=key_hash(image.name.partition(".")[0]),
        height=picture.height,
        width=picture.width,
        crop_pct=recipe.crop_pct,
        crop_mode=recipe.crop_mode,
        target_height=recipe.height,
        target_width=recipe.width,
        **shown,
    )
    return decoder.render(picture, box, height=size, width=size, interpolation=recipe.interpolation)


@pytest.mark.parametrize(("size", "img_size"), [(16, 16), (24, 16), (24, 20)])
def test_pixels_are_those_of_the_labelled_view(make_collection, tmp_path, size, img_size):
    made = make_collection(tmp_path, 2, 24, size=size, views=3, view_recipe="rrc-flip", view_seed=9)
    # More than one thread's piece of work a batch.
    plan = plan_for(made, tmp_path, epochs=1, batch_size=40)
    stored = [made.store.read(tar) for tar in range(2)]
    for batch in batches(plan, recipe=replace(plan.recipe, input_size=(3, img_size, img_size))):
        for i in range(40):
            tar, member = int(batch.rows.tar[i]), int(batch.rows.member[i])
            number = int(batch.rows.view[i])
            shown = {"recipe": "rrc-flip", "seed": 9, "number": number}
            wanted = direct(made, plan, batch, i, size=img_size, shown=shown)
            assert (batch.pixels[i].numpy() == wanted).all()
            assert (batch.rows.topk_class[i] == stored[tar]["topk_class"][member, number]).all()
            assert batch.rows.target[i] == stored[tar]["target"][member]


def test_a_student_of_another_size_sees_the_teachers_box(make_collection, tmp_path):
    recipe = {**RECIPE, "crop_pct": 0.9}
    made = make_collection(tmp_path, 1, 8, size=50, recipe=recipe)
    plan = plan_for(made, tmp_path, epochs=1)
    (batch,) = batches(plan, recipe=replace(plan.recipe, input_size=(3, 20, 20)))
    shown = {"recipe": "center", "seed": 0, "number": 0}
    for i in range(8):
        wanted = direct(made, plan, batch, i, size=20, shown=shown)
        assert (batch.pixels[i].numpy() == wanted).all()


def test_own_augmentation_is_new_each_epoch_and_never_the_labelled_view(collection, tmp_path):
    plan = plan_for(collection, tmp_path, augment="rrc-flip", seed=5, batch_size=20, epochs=2)
    seen: dict[tuple[int, int], list[bytes]] = {}
    for batch in batches(plan):
        for i in range(20):
            shown = {"recipe": "rrc-flip", "seed": 5 | 1 << 63, "number": batch.epoch}
            wanted = direct(collection, plan, batch, i, size=16, shown=shown)
            assert (batch.pixels[i].numpy() == wanted).all()
            key = (int(batch.rows.tar[i]), int(batch.rows.member[i]))
            seen.setdefault(key, []).append(wanted.tobytes())
    assert len(seen) == 60
    assert sum(a == b for a, b in seen.values()) == 0


def rows_of(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(batch.rows.tar.tolist(), batch.rows.member.tolist(), strict=True))


def test_batches_are_the_order_and_the_last_is_padded_with_weight_0(make_collection, tmp_path):
    made = make_collection(tmp_path, 3, 21, bad={4: Status.UNDECODABLE})
    plan = plan_for(made, tmp_path, epochs=2, batch_size=16)
    found = list(batches(plan))
    # 3 tars of 20 good images, twice: 120 = 7.5 batches.
    assert [batch.step for batch in found] == list(range(8))
    order = make_loader(plan).order
    members = [m for m in range(21) if m != 4]
    wanted = []
    for buffer in order.buffers(0):
        wanted += [(int(t), members[p]) for t, p in zip(*buffer.images(), strict=True)]
        if len(wanted) >= 128:
            break
    assert [row for batch in found for row in rows_of(batch)] == wanted[:128]
    weight = np.concatenate([batch.weight for batch in found])
    assert weight.tolist() == [1.0] * 120 + [0.0] * 8


@pytest.mark.parametrize("first_step", [1, 5])
def test_a_stream_that_begins_later_and_has_other_threads_is_the_same(
    collection, tmp_path, first_step
):
    whole = list(batches(plan_for(collection, tmp_path, epochs=2)))
    later = list(batches(plan_for(collection, tmp_path, workers=1), first_step=first_step))
    assert [b.step for b in later] == list(range(first_step, 15))
    for a, b in zip(whole[first_step:], later, strict=True):
        assert rows_of(a) == rows_of(b)
        assert (a.pixels == b.pixels).all()
        assert (a.rows.tail_lse == b.rows.tail_lse).all()
        assert (a.weight == b.weight).all()


def test_a_subset_of_the_tars_in_any_order_and_place_trains_on_its_own_labels(
    make_collection, tmp_path
):
    made = make_collection(tmp_path / "a", 3, 20)
    (tmp_path / "mirror").mkdir()
    moved = [shutil.copy(made.tars[tar], tmp_path / "mirror") for tar in (2, 0)]
    subset = type(made)([Path(tar) for tar in moved], made.labels)
    plan = plan_for(subset, tmp_path, epochs=1, batch_size=10)
    turned = type(made)([Path(tar) for tar in moved[::-1]], made.labels)
    again = plan_for(turned, tmp_path, epochs=1, batch_size=10)
    found = [rows_of(batch) for batch in batches(plan)]
    assert found == [rows_of(batch) for batch in batches(again)]
    assert {tar for rows in found for tar, _ in rows} == {0, 2}


def repack(tar: Path, change: Callable[[bytes], bytes]) -> None:
    """Other bytes of the same length."""
    data = tar.read_bytes()
    changed = change(data)
    assert len(changed) == len(data)
    tar.write_bytes(changed)


def test_a_repacked_tar_is_caught_at_its_first_image(make_collection, write_tar, tmp_path):
    made = make_collection(tmp_path, 1, 20, targets=False)
    with tarfile.open(made.tars[0]) as archive:
        files = [(m.name, archive.extractfile(m).read()) for m in archive.getmembers()]
    # The same files in another order: same size, same names.
    size = made.tars[0].stat().st_size
    write_tar(made.tars[0], files[::-1])
    assert made.tars[0].stat().st_size == size
    plan = plan_for(made, tmp_path)
    with pytest.raises(IdentityError, match=r"t00\.tar: member \d+: not the image that was label"):
        next(batches(plan))


def test_one_changed_byte_of_an_image_is_caught(make_collection, tmp_path):
    made = make_collection(tmp_path, 2, 20)
    at = int(made.store.read(1)["offset"][7]) + 60
    plan = plan_for(made, tmp_path)
    repack(made.tars[1], lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(IdentityError, match=r"t01\.tar: member 7: not the image"):
        list(batches(plan))


class Refusing:
    """A decoder that can't do what the labeler's could."""

    name = "pillow"

    def decode(self, data):
        raise ImageError(Status.UNDECODABLE, "no such codec")


def test_an_ok_image_that_does_not_decode_here_ends_the_run(collection, tmp_path):
    with pytest.raises(MachineError, match=r"member \d+: the labeler could decode it.*no such cod"):
        next(batches(plan_for(collection, tmp_path), decoder=Refusing()))


def test_leaving_early_stops_all_threads(collection, tmp_path):
    before = threading.active_count()
    found = batches(plan_for(collection, tmp_path, epochs=100))
    next(found)
    found.close()
    assert threading.active_count() == before


def test_kept_pixels_are_those_that_would_be_rendered_again(make_collection, tmp_path, monkeypatch):
    made = make_collection(tmp_path, 2, 30, view_recipe="crop-flip", views=2)
    decoded = []
    real = Renderer._view

    def view(self, data, key_hash, number):
        decoded.append((key_hash, number))
        return real(self, data, key_hash, number)

    monkeypatch.setattr(Renderer, "_view", view)

    def pixels(gigabytes):
        decoded.clear()
        config = TrainConfig(
            shards=tuple(map(str, made.tars)),
            labels=made.labels,
            student="softlabel/small-cnn",
            output=tmp_path / "s",
            batch_size=20,
            steps=15,
            device="cpu",
            workers=2,
            pixel_cache_gb=gigabytes,
        )
        plan = make_plan(config)
        loader = make_loader(plan)
        renderer = make_renderer(plan, plan.recipe, open_decoder_of(plan)[0], loader.files)
        settings = make_settings(plan, torch.device("cpu"))
        with stream(loader, renderer, settings, first_step=0, ended=lambda: False) as batches:
            return [batch.pixels.numpy().copy() for batch in batches], len(decoded)

    wanted, times = pixels(0.0)
    assert times == 300
    for gigabytes, most in ((1.0, 150), (30 * (16 * 16 * 3 + 300) / 1e9, 299)):
        found, fewer = pixels(gigabytes)
        assert all(np.array_equal(one, two) for one, two in zip(found, wanted, strict=True))
        assert fewer <= most
