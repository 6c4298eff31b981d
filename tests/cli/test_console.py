"""Progress where there is no terminal."""

import pytest

from raylift.cli import console


def test_lines_now_and_then_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress_bar("training") as bar:
        for total in (100, 4):  # of the second task, anew
            for step in range(1, total + 1):
                now[0] += 6.0
                bar(f"loss {step}", step, total)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 4 of 100, 10 a minute, 10 minutes left  loss 4"
    assert len(lines) == 26  # every 24 seconds, and the ends
    assert lines[-1] == "training: 4 of 4, 10 a minute, 0 minutes left  loss 4"
