"""`tools/bench` refuses what it cannot measure in a sentence."""

from __future__ import annotations

import pytest

from tools.benches import __main__ as command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "no group nonsense; there are memory, start"),
        (["--cluster", "1.31.0"], "invalid choice: '1.31.0'"),
        (["pod"], "no group pod"),
    ],
    ids=["unknown-group", "release-without-v1", "pod-without-cluster"],
)
def test_what_it_cannot_measure(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tools/bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
