"""A torture suite: kills, hostile input, full disks, dead workers, and an oracle that says what is right.

python -m tests.torture --help
"""
