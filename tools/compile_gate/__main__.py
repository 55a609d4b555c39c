"""python -m softlabel.tools.compile_gate."""

from softlabel.tools.compile_gate.cli import main

main()
