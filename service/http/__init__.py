"""The edge: what arrives is parsed, one call is made, what comes back is rendered.

| file | purpose |
|---|---|
| `router.py` | every call and page, registered |
| `routes.py` | the URL table of the API: path, handler, scope, shapes, problems |
| `handlers.py` | one handler a call: parse, call once, render |
| `health.py` | the health answers and metrics |
| `wire.py` | shapes of bodies, in and out; headers |
| `body.py` | a body whole: media type, coding, size |
| `raw_json.py` | bodies whose values stay text |
| `edge.py` | the one middleware: token, answer, error, metrics |
| `echo.py` | which request an answer is to, said back to who asked |
| `failures.py` | a failed request told to its sender and to the operator |
| `access.py` | header -> caller |
| `problems.py` | the one table of error -> status |
| `health_answers.py` | shapes of the health answers, for the reference |
| `openapi.py` | the reference, generated from the URL table and the shapes |
| `examples.py` | what it shows of the calls people begin with |
| `schema_text.py` | its shapes in words |
| `reference.py` | the reference as a page |
| `pages.py` | the two pages a browser opens |
"""
