"""Published experiments as commands: `targetprop figure NAME` computes one, and writes its numbers and its picture.

`cli` is the command; docs/published.md says what each shows, beside what was published. `experiment` is what they have
in common (parts that are kept, the table, the picture), `drawing` how they look, `numbers` what papers report.
`ernoult` and `toy` compute in this process; `runs` trains with published settings, and `plans` compares by the protocol
of `targetprop compare`.
"""
