"""What schemathesis cannot know of the service by its OpenAPI document.

- Cursors, tokens and positions are sealed by the service: none can be made up, so made-up ones are left out.
- Of the moments to read an order at, one is asked for: the document says so in words alone.
- What an entity tag looks like is said in words, too: a condition that is none is made one.
- Orders are sent in bulk as lines of JSON.
- The core projection is not paused, and no version is waited for that may never come: reads would rightly say that the
  read model is behind. For the same reason reads are patient: the machine may have much else to do.
- The service under test has two partitions.
"""

import json
import re

import schemathesis
from hypothesis import strategies as st

SEALED_HEADERS = {"sync-token", "last-event-id"}
SEALED_PARAMETERS = {"cursor"}
CONDITIONS = {"if-match", "if-none-match"}
ENTITY_TAGS = re.compile(r'\*|(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*')
MOMENTS = ("min_version", "at_version", "as_of")
PARTITIONS, PARTITIONS_MAX = 2, 1024
CORE = ("orders", "all")
KINDS = ["OrderPlaced", "LineAdded", "OrderConfirmed", "OrderPaid", "OrderCancelled"]

schemathesis.openapi.format("event-types", st.lists(st.sampled_from(KINDS), min_size=1, unique=True).map(",".join))
schemathesis.openapi.format("preferences", st.sampled_from(["wait=20", "wait=30", "respond-async", "return=minimal"]))
TAGS = st.sampled_from(['"0"', '"1"', '"2"', 'W/"1"', '"x"'])
schemathesis.openapi.format("entity-tags", st.just("*") | st.lists(TAGS, min_size=1, max_size=3).map(", ".join))


@schemathesis.hook
def before_call(context, case, kwargs):
    for name in [name for name in case.headers or {} if name.lower() in SEALED_HEADERS]:
        del case.headers[name]
    for name, tags in list((case.headers or {}).items()):
        if name.lower() in CONDITIONS and not ENTITY_TAGS.fullmatch(str(tags)):
            case.headers[name] = '"1"'
    query = case.query or {}
    for name in [name for name in query if name in SEALED_PARAMETERS]:
        del query[name]
    for name in [name for name in MOMENTS if name in query][1:]:
        del query[name]
    if "min_version" in query or "at_version" in query:
        for name in [name for name in case.headers or {} if name.lower() == "prefer"]:
            del case.headers[name]
    partition = str(query.get("partition", ""))
    if partition.isdecimal() and int(partition) < PARTITIONS_MAX:
        query["partition"] = int(partition) % PARTITIONS
    if case.operation.path.startswith("/projections/") and case.path_parameters.get("name") in CORE:
        case.path_parameters["name"] = "sku_demand"


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


@schemathesis.deserializer("application/x-ndjson")
def outcomes(context, response):
    return response.content.decode()
