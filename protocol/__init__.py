"""What the bytes mean: asked by all, asks nobody.

Pure: no I/O, clock, randomness, environment, logging or ``async``; time and nonces are arguments. Bad data of a
session is judged here, misuse raises. Nothing here rewrites stored text: views look, the text stays as it was sent.

| file | purpose |
|---|---|
| `types.py` | names of sessions, types and ids of keys: their grammar |
| `buffer_json.py` | every spelling of bytes in Baileys JSON -> bytes |
| `creds.py` | what a commit must know of creds: identity, pairing, counters |
| `pre_key.py` | are two pre-key texts the same key pair? |
| `file_names.py` | multi-file names <-> (type, id), and the grammar of ids by type |
| `spelling.py` | where bytes stand in values of each type; respelling them |
| `repairs.py` | rows of other stores -> what they mean, each repair named |
| `digest.py` | canonical digest of a value: the same for every spelling |
| `curve.py`, `adv.py`, `lthash.py` | X25519 pairs and XEdDSA; ADV signatures; LTHash: each check raises |
| `session_record.py`, `sender_key.py`, `records.py` | typed views of records, for judging |
| `rules.py` | the catalogue of integrity rules: severity, meaning, what to do |
| `checks/` | one function a rule: a session -> a stream of findings |
| `json_edit.py` | setting members of a JSON object in its text |
| `redact.py` | values with nothing left but their form, for bug reports |
| `errors.py` | the tree of errors |
"""
