from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nursery_apps import kube_wire
from nursery_apps.seams import Gone, Resource, Unavailable


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and line.strip()), max_size=8), st.data())
def test_lines_do_not_depend_on_where_chunks_end(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cutter, found = kube_wire.Lines(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += cutter.feed(stream[:size])
        stream = stream[size:]
    assert found == lines


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_wire, "LINE_BYTES", 10)
    cutter = kube_wire.Lines()
    assert cutter.feed(b"0123456789") == []
    with pytest.raises(Unavailable):
        cutter.feed(b"x")


@pytest.mark.parametrize(
    ("what", "namespace", "name", "path"),
    [
        (Resource("v1", "nodes", dict), "", "", "/api/v1/nodes"),
        (Resource("v1", "events", dict, namespaced=True), "default", "a/b", "/api/v1/namespaces/default/events/a%2Fb"),
        (Resource("a.b/v1", "things", dict, namespaced=True), "", "", "/apis/a.b/v1/things"),
    ],
)
def test_paths(what: Resource[dict[str, str]], namespace: str, name: str, path: str) -> None:
    assert kube_wire.path(what, namespace, name) == path


def test_an_expired_watch_is_gone_whatever_number_it_comes_with() -> None:
    assert isinstance(kube_wire.refusal(500, kube_wire.Status(reason="Expired")), Gone)
