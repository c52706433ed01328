"""Measures the store beside what people use instead, on this machine, with one command: `make bench`.

    __main__ ── side_by_side, scale, durability ── worker ── node/worker.mjs ── node/workloads.mjs ── node/stores/*
                    │                │
                    │                └─ counters (statements, requests, WAL, fsyncs)
                    ├─ stores (who takes part) ── servers/* (private, in a temporary folder)
                    └─ figures (medians, ratios, the A/A rule) ── report, plots ── readme

What keeps us from a goal is measured too, by `make bench-floors`: the parts of a workload alone (`floors`: in Node by
`node/parts.mjs`, in the service by `inside`, between them by `servers/nothing`), and what sealing, fencing and the error
tracker take of the throughput (`budgets`, `budget_report`, `cpu`), beside services that lack them (`reduced`).

Python starts the servers, says what runs next and counts; one Node process does all the work, through the interface
Baileys itself uses. Nothing here touches a server that already runs: every one is started for the run, on a free port,
under a folder that is removed afterwards.
"""
