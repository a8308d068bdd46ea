import os
import shutil

import pytest

from vla.data import atomic
from vla.data.atomic import replacing, replacing_directory, write_json


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_with_all_its_files(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    path = tmp_path / "checkpoint"
    for names in (("a", "b"), ("b", "c")):
        with replacing_directory(path) as temporary:
            for name in names:
                (temporary / name).write_text("".join(names))
    assert {p.name: p.read_text() for p in path.iterdir()} == {"b": "bc", "c": "bc"}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_the_old_directory_stands_until_the_new_one_takes_its_name(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "weights").write_text("old")
    seen = []
    monkeypatch.setattr(
        shutil, "rmtree", lambda target, **_: seen.append((path / "weights").read_text())
    )
    with replacing_directory(path) as temporary:
        (temporary / "weights").write_text("new")
        seen.append((path / "weights").read_text())
    assert seen == ["old", "old", "new"]  # before, while writing, and when the old one is deleted


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    with pytest.raises(ValueError), replacing_directory(tmp_path / "x") as temporary:
        (temporary / "file").write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_json_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    real_replace, real_fsync = os.replace, os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (order.append("fsync"), real_fsync(descriptor))[1]
    )
    monkeypatch.setattr(
        os, "replace", lambda a, b: (order.append("replace"), real_replace(a, b))[1]
    )
    write_json(tmp_path / "info.json", {"a": 1})
    assert order == ["fsync", "replace", "fsync"]
