"""The experiments: python -m softlabel.tools.experiments."""

from softlabel.shards import commandline
from softlabel.tools.experiments.settings import ExperimentsConfig

DESCRIPTION = """Check the claims this software rests on: train small students through kd-label,
kd-train and kd-eval, and write what came of it, claim by claim.

Examples:
  python -m softlabel.tools.experiments                    digits and MNIST (make experiments)
  python -m softlabel.tools.experiments --data digits --only blind --seeds 1
  python -m softlabel.tools.experiments --data digits mnist cifar10   (make experiments-full)

Interrupted, it goes on where it stopped; finished students are not trained again."""


def run(config: ExperimentsConfig) -> int:
    """The whole campaign."""
    from softlabel.tools.experiments.campaign import campaign

    campaign(config)
    return 0


def main() -> None:
    """The command."""
    commandline.main("experiments", DESCRIPTION, ExperimentsConfig, run)


if __name__ == "__main__":
    main()
