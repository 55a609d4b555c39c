"""`--dry-run`: what would be done, how large and about how long, and nothing written."""

from softlabel.labeler.plan import Plan, tar_sizes
from softlabel.shards.disk import free_bytes, raw_row_bytes


def dry_run(plan: Plan) -> list[str]:
    """The lines to print."""
    manifest = plan.manifest
    mine, pending = plan.my_tars(), plan.pending()
    sizes = tar_sizes(plan)
    known = [size for tar in pending if (size := sizes[tar]) is not None]
    most_rows = len(pending) * manifest.rows_per_tar
    row_bytes = raw_row_bytes(manifest)
    _, height, width = plan.recipe.input_size
    return [
        f"teacher  {plan.teacher.path.name}, sha256 {plan.teacher.sha256[:12]}, "
        f"{manifest.num_classes} classes, {height}x{width} pixels, {manifest.provider}",
        f"recipe   {plan.recipe.to_dict()}",
        f"shards   {len(plan.tars)} tars; {len(mine)} in this part, "
        f"{len(mine) - len(pending)} already labelled, {len(pending)} to label"
        + (f" ({sum(known) / 1e9:,.2f} GB)" if known else ""),
        f"labels   top {manifest.top_k} at {manifest.views} {manifest.view_recipe} view(s), tails "
        f"at temperatures {', '.join(f'{t:g}' for t in manifest.temperatures)}",
        f"store    {plan.config.out}, {'resumed' if plan.store else 'new'}; at most "
        f"{most_rows:,} rows of {row_bytes} bytes before compression = "
        f"{most_rows * row_bytes / 1e9:,.2f} GB; free: {free_bytes(plan.config.out) / 1e9:,.1f} GB",
        "nothing was written",
    ]
