"""Comparisons of ways to train whose rules are fixed beforehand: a plan, a search, a choice, fresh runs, a report.

`benchmarks/compare.py` is the command; benchmarks/README.md says how a comparison goes. Modules, each of which imports
from those before it only: `stats` (numbers in, numbers out), `plan` (what is committed before anything runs), `trials`
(runs of `python main.py` and their records), `choice` (rates from validation), `report` and `picture`.
"""
