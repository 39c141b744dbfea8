"""Only regular files are opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file


def test_pipes_devices_sockets_and_folders_are_refused_also_behind_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    assert regular_file(tmp_path / "file").read_text() == regular_file(str(tmp_path / "link")).read_text() == "content"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to_pipe").symlink_to("pipe")
    (tmp_path / "to_zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    kinds = {"pipe": "a named pipe", "to_pipe": "a named pipe", "to_zero": "a device", "folder": "a folder"}
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind("socket")
        for name, kind in {**kinds, "socket": "a socket"}.items():
            with pytest.raises(UserError, match=f"{name} is {kind}; give a regular file"):
                regular_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "gone")
