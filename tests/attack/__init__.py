"""The robustness suite: seeded attacks on the nodes, the loaders and a live server, and the scoreboard they end in.

    python dev.py attack --minutes 5 --seed 1
    python dev.py attack --minutes 3 --alike        what the test command runs after all tests

Each module of ``sections`` is one kind of attack with ``run(budget, rng) -> (findings, counts)``. It runs in a process of
its own with a private temporary folder, talks to loopback only, and ends in time; what it finds is counted, grouped by
cause, and reported with the smallest input that shows it. There is no list of known faults: what is found is a failure.
"""
