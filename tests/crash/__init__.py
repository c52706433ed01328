"""The crash test: writers commit while the service, its Postgres, or both are killed; a checker judges what is left.

    writer.py   commits of every kind, each with an Idempotency-Key, sent again until answered
    killer.py   SIGKILL to the service, to Postgres, to one backend, to both; and how long until it is ready again
    checker.py  the history of a run, and what is wrong with it
    run.py      one run of all of them

``python -m tests.crash --kills 60 --acks 10000 --seed N`` is the release run; `make test` has a shorter one. The seed
decides what is written and what is killed when; the machine decides what that meets.
"""
