"""The images worth a look: where the models agree least surely, and where they differ most."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.decoders import open_decoder
from softlabel.shards.members import members
from softlabel.shards.specs import is_local, local_path, open_tar
from softlabel.shards.tars import TarStream
from softlabel.shards.views import View
from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.report.gallery import LARGEST, Card, Guess

SHOWN = 12
_GUESSES = 3


def unsure_agreements(evaluation: Evaluation, count: int = SHOWN) -> NDArray[np.int64]:
    """Images on which student and teacher agree and the student is least confident."""
    agreed = np.flatnonzero(evaluation.agrees)
    order = np.argsort(evaluation.answers["student"].confidence[agreed], kind="stable")
    return agreed[order[:count]]


def strong_disagreements(evaluation: Evaluation, count: int = SHOWN) -> NDArray[np.int64]:
    """Images on which they differ, and both are confident: by the product of confidences."""
    differ = np.flatnonzero(~evaluation.agrees)
    student, teacher = (evaluation.answers[role].confidence for role in ("student", "teacher"))
    order = np.argsort(-(student * teacher)[differ], kind="stable")
    return differ[order[:count]]


def cards(evaluation: Evaluation, rows: Sequence[int] | NDArray[np.int64]) -> list[Card]:
    """The images of some rows, whole, with everybody's first classes.

    Images of tars that aren't on this machine are left out: it would mean to fetch them again.
    """
    urls = evaluation.labelled.urls
    wanted: dict[int, list[int]] = {}
    for row in map(int, rows):
        tar = int(evaluation.images.tar[row])
        if is_local(urls[tar]):
            wanted.setdefault(tar, []).append(row)
    found: dict[int, Card] = {}
    for tar, own in wanted.items():
        keys = _keys(urls[tar], [int(evaluation.images.member[row]) for row in own])
        for row, pixels, key in zip(own, _pictures(evaluation, tar, own), keys, strict=True):
            found[row] = _card(evaluation, row, pixels, f"{key} in {Path(urls[tar]).name}")
    return [found[row] for row in map(int, rows) if row in found]


def _card(evaluation: Evaluation, row: int, pixels: NDArray[np.uint8], place: str) -> Card:
    names, target = evaluation.class_names, int(evaluation.images.target[row])
    guesses = []
    for role in sorted(evaluation.roles, key=lambda role: role != "teacher"):
        answers = evaluation.answers[role]
        pairs = zip(answers.classes[row].tolist(), answers.probability[row].tolist(), strict=True)
        shown = [Guess(name=names[c], probability=p, is_right=c == target) for c, p in pairs]
        guesses.append((role, shown[:_GUESSES]))
    title = names[target] if target >= 0 else None
    return Card(pixels=pixels, place=place, guesses=guesses, target=title)


def _pictures(evaluation: Evaluation, tar: int, rows: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    labelled = evaluation.labelled
    manifest = labelled.store.manifest
    decoder = open_decoder(manifest.decoder, max_pixels=manifest.max_image_pixels)
    place = labelled.store.read(tar, ("offset", "size"))
    with Path(local_path(labelled.urls[tar])).open("rb") as file:
        for row in rows:
            member = int(evaluation.images.member[row])
            file.seek(int(place["offset"][member]))
            picture = decoder.decode(file.read(int(place["size"][member])))
            shrink = max(1.0, max(picture.height, picture.width) / LARGEST)
            yield decoder.render(
                picture,
                View(0, 0, picture.height, picture.width, False),
                height=max(1, round(picture.height / shrink)),
                width=max(1, round(picture.width / shrink)),
                interpolation="bilinear",
            )


def _keys(tar: str, wanted: Sequence[int]) -> list[str]:
    """The keys of some members of a local tar, which only its headers hold."""
    with open_tar(tar) as (file, size):
        found = TarStream(file, name=tar, size=size, hashed=False)
        keys = [member.key for member in members(found, image_ext=())]
    return [keys[number] for number in wanted]
