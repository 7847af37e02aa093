"""One page with the verdicts of all stages: `data/<profile>/quality/index.html`.

Great Expectations' own Data Docs don't escape the values they show, and load styles and scripts
from other sites. Here every value is escaped, nothing is loaded, and no script can run.
"""

from pathlib import Path

from ml.pipeline.table import STAGES
from ml.pipeline.workspace import VERDICT, Workspace
from ml.store.files import atomic, read_note

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Checks of {{ profile }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-top: 1px solid #ddd }
.failed { background: #fdecea }
</style></head><body>
<h1>Checks of {{ profile }}</h1>
<p>What each check means and what to do: docs/checks.md.</p>
{% for stage, verdict in verdicts %}
<h2 id="{{ stage }}">{{ stage }}: {{ "passed" if verdict.passed else "failed" }}</h2>
<table><tr><th>check</th><th>observed</th><th>expected</th><th>what breaks it</th></tr>
{% for r in verdict.results %}
<tr class="{{ "passed" if r.passed else "failed" }}"><td>{{ r.name }}</td><td>{{ r.observed }}</td>
<td>{{ r.bound }}</td><td>{{ r.examples | join("; ") }}</td></tr>
{% endfor %}</table>
{% endfor %}
</body></html>
"""


def page_of(workspace: Workspace) -> Path:
    return workspace.data / "quality" / "index.html"


def write_page(workspace: Workspace) -> None:
    """Writes the page from the stages' `quality.json`; one that can't be read is left out."""
    from jinja2 import Environment

    verdicts = []
    for stage in STAGES:
        path = workspace.state(stage.name) / "quality.json"
        if (verdict := read_note(path, VERDICT | {"results": list})) is not None:
            verdicts.append((stage.name, verdict))
    template = Environment(autoescape=True).from_string(TEMPLATE)
    with atomic(page_of(workspace)) as temporary:
        temporary.write_text(
            template.render(profile=workspace.profile, verdicts=verdicts), encoding="utf-8"
        )
