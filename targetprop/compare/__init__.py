"""Comparisons of rules: a plan, a search by the same rules for all, fresh seeds, measured prices, a table and a page.

`cli` is the command; docs/compare.md says how a comparison goes, and why so. One concept a file, each of which imports
from those before it only:

- `stats` (numbers in, numbers out), `rates` (the same effective rate for all), `plan` and `plan_file` (what is said
  beforehand), `needed` (packages of the extra);
- `contest` (what is compared with what), `probe` (what a rule is and what its step takes, measured), `trial` (one run),
  `run_folder` (what a run leaves), `records` (what is kept of it), `processes` (runs side by side), `progress`;
- `search` (the choice of rates), `frozen` (its file), `estimate`, `comparison` (all of it in turn);
- `results` (what came of it, by a schema), `gather` (of records), `existing` (of run directories), `table`, `charts`,
  `page`, `leaderboard`.

`probe_worker` is a process of its own, in which rules are timed side by side.
"""
