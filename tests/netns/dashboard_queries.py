"""dashboard_queries.py PROMETHEUS_URL DASHBOARD: asks every query of a Grafana dashboard.

Each must be understood and give at least one series.
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

# What Grafana puts in. Long enough for everything that a short test has done.
VARIABLES = {"$__rate_interval": "30s", "$__range": "30s", "$instance": ".*"}


def queries(node, title=""):
    """(title, query) of panels, annotations and variables, however deep."""
    if isinstance(node, list):
        for item in node:
            yield from queries(item, title)
    elif isinstance(node, dict):
        title = node.get("title") or node.get("name") or title
        if isinstance(node.get("expr"), str):
            yield title, node["expr"]
        definition = node.get("definition", "")
        if definition.startswith("label_values("):
            metric, label = definition.removeprefix("label_values(").rstrip(")").split(", ")
            yield title, f"group by ({label}) ({metric})"
        for value in node.values():
            yield from queries(value, title)


def series(url, query):
    arguments = urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{arguments}", timeout=5) as answer:
            return len(json.load(answer)["data"]["result"])
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{query}: {json.load(error)['error']}") from error


def main():
    url, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        dashboard = json.load(file)
    empty = asked = 0
    for title, query in queries(dashboard):
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        if "$" in query:
            raise SystemExit(f"{title}: {query}: a variable the test does not know")
        asked += 1
        if series(url, query) == 0:
            empty += 1
            print(f"{title}: {query}: no series")
    print(f"{asked} queries, {empty} without a series")
    return 1 if empty or asked < len(dashboard["panels"]) else 0


if __name__ == "__main__":
    sys.exit(main())
