"""label(config): the run, readable top to bottom."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from softlabel.labeler.batching import BatchChoice, choose_batch
from softlabel.labeler.closing import bad_lines, label_lines, member_lines, size_line, time_line
from softlabel.labeler.config import LabelConfig
from softlabel.labeler.graph import prepare
from softlabel.labeler.head import head_of
from softlabel.labeler.plan import Plan, make_plan, tar_sizes
from softlabel.labeler.rendering import ViewRenderer
from softlabel.labeler.run_log import RunLog
from softlabel.labeler.session import TeacherSession, num_cores
from softlabel.labeler.stream import StreamSettings, stream, timed
from softlabel.labeler.tar_labels import Labelling, amount, sample_pixels
from softlabel.shards.cache import cache_folder
from softlabel.shards.decoders import open_decoder
from softlabel.shards.disk import require_free_space
from softlabel.shards.progress import Progress
from softlabel.shards.specs import redacted
from softlabel.shards.stopping import stop_on_signals
from softlabel.shards.store import Store, bad_rows, delete_store, is_store, remove_leftovers

_CHUNK_PIXEL_BYTES = 8 << 20
_CHUNK_MEMBERS = 32


@dataclass(kw_only=True)
class Outcome:
    """How a run ended."""

    store: Store
    committed: int
    """Tars committed by this run."""
    failed: dict[str, str] = field(default_factory=dict)
    """Tars that could not be labelled, and why."""
    bad: int
    """Members of all committed tars (of this part) that are not ok."""
    members: int
    max_bad_rate: float
    signal: int
    """SIGINT or SIGTERM if one ended the run, else 0."""

    @property
    def exit_code(self) -> int:
        """0 complete, 3 failed tars or too many bad images, 128 + signal interrupted."""
        if self.signal:
            return 128 + self.signal
        return 3 if self.failed or self.too_many_bad or self.nothing_labelled else 0

    @property
    def too_many_bad(self) -> bool:
        """More bad images than --max-bad-rate allows."""
        return self.bad > self.max_bad_rate * self.members

    @property
    def nothing_labelled(self) -> bool:
        """Tars were read, and not one labelled image came of them."""
        return self.bad == self.members

    def verdict(self) -> str:
        """The last line: complete, or what is left to do."""
        if self.signal:
            return "interrupted: every committed tar is safe; rerun the same command to go on"
        if self.failed:
            return (
                f"unfinished: {len(self.failed)} tar(s) failed, the others are labelled; "
                "mend or remove them, then rerun the same command"
            )
        if self.nothing_labelled:
            return "nothing labelled: the tars hold no image that could be used"
        if self.too_many_bad:
            return (
                f"too many bad images: {self.bad:,} of {self.members:,} is more than "
                f"--max-bad-rate {self.max_bad_rate:g}; all others are labelled"
            )
        return "complete"


def label(config: LabelConfig) -> Outcome:
    """Label what is still pending, commit tar by tar, and say how it went.

    Raises:
        SoftLabelError: before anything is written, for whatever can't be right; MachineError also
            later, where the disk fails.
    """
    plan = make_plan(config)
    session = _open_session(plan)
    store = _open_store(plan)
    mine, pending = plan.my_tars(), [tar for tar in store.pending() if config.my_part(tar)]
    sizes = tar_sizes(plan)
    require_free_space(store.path, rows=plan.likely_rows(pending), manifest=plan.manifest)
    choice = _choose_batch(plan, session, pending)
    log = RunLog(store.path / "runs", plan, choice)
    done = amount(sizes, [tar for tar in mine if tar not in set(pending)])
    progress = Progress(
        "labelling", total=amount(sizes, mine), done=done, log_format=config.log_format
    )
    work = Labelling(
        store=store, session=session, batch_size=choice.batch_size, progress=progress, sizes=sizes
    )
    todo = [(tar, plan.tars[tar]) for tar in pending]
    with (
        stop_on_signals(config.grace) as stop,
        progress,
        stream(todo, timed(_renderer(plan)), _stream_settings(plan)) as items,
    ):
        work.consume(items, stop, done=done)
    outcome = _outcome(plan, store, work, stop.signal)
    log.close(work.times, work.images)
    for line in _closing_lines(outcome, work, config):
        progress.say(line)
    return outcome


def _outcome(plan: Plan, store: Store, work: Labelling, signal: int) -> Outcome:
    commits = {tar: c for tar, c in store.commits().items() if plan.config.my_part(tar)}
    bad, members = bad_rows(commits)
    return Outcome(
        store=store,
        committed=work.committed,
        failed={redacted(store.tars[tar]): str(error) for tar, error in work.failed.items()},
        bad=bad,
        members=members,
        max_bad_rate=plan.config.max_bad_rate,
        signal=signal,
    )


def _closing_lines(outcome: Outcome, work: Labelling, config: LabelConfig) -> Iterator[str]:
    store = outcome.store
    commits = store.commits()
    yield from bad_lines(work.bad, num_bad=work.num_bad, duplicates=work.duplicates)
    yield from member_lines(commits)
    if work.images:
        yield from label_lines(work.statistics, top_k=store.manifest.top_k)
        yield time_line(work.times, images=work.images, workers=config.num_workers)
    yield size_line(store, sum(commit.members for commit in commits.values()))
    yield outcome.verdict()


def _open_session(plan: Plan) -> TeacherSession:
    graph = prepare(
        plan.teacher,
        plan.recipe,
        top_k=plan.manifest.top_k,
        temperatures=plan.manifest.temperatures,
        cache_dir=cache_folder() / "graphs",
    )
    return TeacherSession(graph, provider=plan.manifest.provider, threads=num_cores())


def _open_store(plan: Plan) -> Store:
    path = plan.config.out
    if plan.config.overwrite and is_store(path):
        delete_store(path)
    names = [redacted(tar) for tar in plan.tars]
    store = plan.store
    if store is None:
        head = head_of(plan.teacher) if plan.teacher.embedding_name else None
        store = Store.create(path, plan.manifest, names, head=head)
    remove_leftovers(store)
    return store


def _renderer(plan: Plan) -> ViewRenderer:
    decoder = open_decoder(plan.manifest.decoder, max_pixels=plan.manifest.max_image_pixels)
    return ViewRenderer(plan.manifest, plan.recipe, decoder)


def _stream_settings(plan: Plan) -> StreamSettings:
    _, height, width = plan.recipe.input_size
    member_bytes = plan.manifest.views * height * width * 3
    return StreamSettings(
        workers=plan.config.num_workers,
        chunk_members=max(1, min(_CHUNK_MEMBERS, _CHUNK_PIXEL_BYTES // member_bytes)),
        image_ext=plan.manifest.image_ext,
        rows_per_tar=plan.manifest.rows_per_tar,
    )


def _choose_batch(plan: Plan, session: TeacherSession, pending: list[int]) -> BatchChoice:
    fixed = plan.teacher.batch_size or (
        None if plan.config.batch_size == "auto" else int(plan.config.batch_size)
    )
    if fixed is not None:
        return BatchChoice(batch_size=fixed, images_per_s={}, ruled_out=())
    first = [(tar, plan.tars[tar]) for tar in pending[:1]]
    with stream(first, timed(_renderer(plan)), _stream_settings(plan)) as items:
        return choose_batch(session, sample_pixels(items))
