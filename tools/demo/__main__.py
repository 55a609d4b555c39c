"""The demo from download to report: python -m softlabel.tools.demo."""

from softlabel.shards import commandline
from softlabel.tools.demo.settings import DemoConfig

DESCRIPTION = """Label CIFAR-10's 50,000 training images, stripped of their labels, with a ResNet;
train a student of 70,000 parameters on what it says; compare teacher, student and the same student
trained on the true labels; write one report.

Examples:
  python -m softlabel.tools.demo            goes on where it stopped (make demo)
  python -m softlabel.tools.demo --fresh    starts over, downloads kept (make demo-fresh)"""


def run(config: DemoConfig) -> int:
    """The whole demo."""
    from softlabel.tools.demo.story import tell

    tell(config)
    return 0


def main() -> None:
    """The command."""
    commandline.main("demo", DESCRIPTION, DemoConfig, run)


if __name__ == "__main__":
    main()
