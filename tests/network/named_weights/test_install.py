"""Named weights from the hub to the pipeline: whole, interrupted, refused, damaged, on a full disk, two at once."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from ff3r_model.cli import main
from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint
from ff3r_model.network.named_weights import digests
from ff3r_model.network.named_weights import hub as hub_module
from ff3r_model.network.named_weights import install as install_module
from ff3r_model.network.named_weights.install import install, recipe_named
from ff3r_model.network.named_weights.places import WeightsError, place_of
from ff3r_model.network.tipsv2_text import TIPSv2TextEncoder
from ff3r_model.pipeline import Pipeline
from tests.network.named_weights.conftest import point_to
from tests.support.hub_server import Hub
from tests.support.standin_hub import GEOMETRY, TOKENIZER, WORDS, install_standin, published_files

CONVERT_FILES = install_module.convert_files


def get(**options: Any) -> Path:
    return install(recipe_named("apache"), **options)[0]


def cached(folder: Path) -> list[Path]:
    """Files of the hub's cache, whole or not, without locks."""
    return [path for path in (folder / "hub").rglob("blobs/*") if not path.name.startswith(".")]


def test_from_the_hub_to_the_pipeline(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path, made = install(recipe_named("apache"))
    assert made and path == tmp_path / "data/ff3r/weights/apache.safetensors"
    assert sorted(address for address, _ in hub.bodies()) == sorted([GEOMETRY, WORDS, TOKENIZER])
    assert f"fetching {GEOMETRY} from {hub.url}: 0.4 MB" in caplog.text
    assert Pipeline.from_checkpoint("apache").space.channels == load_checkpoint(path).config.feature_channels
    # A second time nothing is asked for, and nothing changes.
    before, asked = path.stat().st_mtime_ns, len(hub.asked)
    assert install(recipe_named("apache")) == (path, False)
    assert path.stat().st_mtime_ns == before and len(hub.asked) == asked
    # The hub's own cache is as its library leaves it: offline, the files are found there.
    assert {path.name for path in cached(tmp_path)} == {hashlib.sha256(each).hexdigest() for each in hub.files.values()}


def test_published_names_are_converted(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the real conversion, of tiny networks under the published names."""
    install_standin(monkeypatch, quick=False)
    monkeypatch.setattr(install_module, "convert_files", CONVERT_FILES)
    hub.files = published_files(tmp_path / "published")
    get(conversion=install_module.Conversion(channels=32, dtype=torch.float16))
    checkpoint = load_checkpoint("apache")
    assert checkpoint.mode == "lifting" and checkpoint.config.feature_channels == 32
    assert checkpoint.config.da3 is not None and checkpoint.config.tipsv2 is not None
    assert checkpoint.card["made_from"].keys() == {"da3", "tipsv2", "tokenizer"}
    assert isinstance(checkpoint.text_encoder, TIPSv2TextEncoder)


def test_a_connection_that_breaks_is_gone_on_with(hub: Hub) -> None:
    hub.cut_after = len(hub.files[GEOMETRY]) // 2
    get()
    (whole, rest) = [sent for address, sent in hub.bodies() if address == GEOMETRY]
    assert whole == "" and 0 < int(rest.removeprefix("bytes=").removesuffix("-")) < len(hub.files[GEOMETRY])


def test_an_interrupted_download_is_gone_on_with_the_next_time(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the program has ended in between, as by Ctrl-C."""
    original, half = hub_module.http_get, len(hub.files[GEOMETRY]) // 2

    def interrupted(url: str, file: Any, **options: Any) -> None:
        file.write(hub.files[GEOMETRY][:half])
        raise KeyboardInterrupt

    monkeypatch.setattr(hub_module, "http_get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get()
    assert not place_of("apache").exists()
    monkeypatch.setattr(hub_module, "http_get", original)
    get()
    assert [sent for address, sent in hub.bodies() if address == GEOMETRY] == [f"bytes={half}-"]
    assert not [path for path in cached(tmp_path) if path.name.endswith("incomplete")]


def test_damaged_on_the_way(hub: Hub, tmp_path: Path) -> None:
    hub.damage = True
    with pytest.raises(WeightsError, match=r"DA3-BASE/model\.safetensors came damaged: its SHA-256 is .*removed"):
        get()
    assert not cached(tmp_path) and not place_of("apache").exists()
    hub.damage = False
    get()


def test_another_file_than_the_manifest_knows(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    known = digests.manifest()
    monkeypatch.setattr(digests, "manifest", lambda: known | {GEOMETRY: digests.Known(1, "0" * 64)})
    with pytest.raises(WeightsError, match=f"is not the {GEOMETRY} that this package knows.*should be {'0' * 64}"):
        get()
    assert not place_of("apache").exists()
    right = hashlib.sha256(hub.files[GEOMETRY]).hexdigest()
    monkeypatch.setattr(digests, "manifest", lambda: known | {GEOMETRY: digests.Known(1, right)})
    get()
    assert GEOMETRY not in digests._learnt(), "what is known need not be learnt"


def test_a_file_is_trusted_on_first_use(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    old = get().read_bytes()
    assert f"{WORDS}: its SHA-256 is not known to this package; trusted as it came and remembered" in caplog.text
    hub.files[WORDS], hub.commit = hub.files[WORDS] + b"", "2" * 40
    get(again=True)
    hub.files[TOKENIZER] = b"another"
    hub.commit = "3" * 40
    with pytest.raises(
        WeightsError, match=r"is another google/tipsv2-b14/tokenizer\.model than the one that came first"
    ):
        get(again=True)
    assert place_of("apache").read_bytes() == old
    digests.learnt_file().unlink()
    get(again=True)


def test_digests_that_others_can_write_or_that_are_damaged(hub: Hub) -> None:
    get()
    learnt = digests.learnt_file()
    learnt.chmod(0o666)
    with pytest.raises(WeightsError, match="may be written by other users"):
        get(again=True)
    learnt.chmod(0o644)
    learnt.write_text("[1]")
    with pytest.raises(WeightsError, match=r"is damaged .* remove it"):
        get(again=True)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "EntryNotFound", r"has no file model\.safetensors: .*--file da3=PATH"),
        (401, "RepoNotFound", r"the hub refuses .* only for those who are logged in.*HF_TOKEN"),
        (401, "GatedRepo", r"is gated: log in at http.*/depth-anything/DA3-BASE and accept its terms.*HF_TOKEN"),
        (403, "GatedRepo", r"is gated: log in"),
        (403, "", r"the hub refuses .*HF_TOKEN"),
    ],
)
def test_refused(hub: Hub, status: int, code: str, said: str) -> None:
    hub.refuse[GEOMETRY] = (status, code)
    with pytest.raises(WeightsError, match=said):
        get()
    assert not place_of("apache").exists()


def test_a_token_goes_to_the_hub_and_to_nobody_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get()
    to_blobs = [each for each in hub.tokens if each.startswith("blob")]
    assert to_blobs and set(to_blobs) == {"blob "}
    assert set(hub.tokens) - set(to_blobs) == {"Bearer hf_secret"}


def test_a_full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(url: str, file: Any, **options: Any) -> None:
        file.write(hub.files[GEOMETRY][:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(hub_module, "http_get", full)
        with pytest.raises(WeightsError, match=r"is full \(No space left on device\) .*HF_HOME"):
            get()
    get()
    assert (GEOMETRY, "bytes=1000-") in hub.bodies()


def test_a_disk_that_will_not_do_is_told_before(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(1, 1, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match="GB free: make room, or set HF_HOME"):
        get()
    assert not hub.bodies()


def test_a_disk_that_is_full_when_the_checkpoint_is_written(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    old = get().read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ff3r_model.network.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        get(again=True)
    assert [path.name for path in place_of("apache").parent.iterdir() if path.name[0] != "."] == ["apache.safetensors"]
    assert place_of("apache").read_bytes() == old


def test_a_broken_conversion_leaves_the_older_file(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    old = get().read_bytes()
    monkeypatch.setattr(
        install_module, "convert_files", lambda recipe, files, output, how: output.write_bytes(b"nothing")
    )
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        get(again=True)
    assert place_of("apache").read_bytes() == old
    assert not list(place_of("apache").parent.glob("*.part"))


def test_two_at_once_fetch_and_convert_once(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(install(recipe_named("apache"))[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, True] and len(hub.bodies()) == 3
    assert "another program installs apache; waiting for it" in caplog.text


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"is not in .*hub, and HF_HUB_OFFLINE forbids to fetch it.*--file da3=PATH"):
        get()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    path = get()
    path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert get().exists() and len(hub.asked) == asked, "what is in the cache is enough"


def test_a_hub_that_cannot_be_reached(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = get()
    place.unlink()
    point_to("http://127.0.0.1:9", monkeypatch, tmp_path)
    assert get().exists()
    assert "http://127.0.0.1:9 cannot be reached" in caplog.text and "as it is in the cache" in caplog.text
    shutil.rmtree(tmp_path / "hub")
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9 cannot be reached for .*is HF_ENDPOINT right"):
        get(again=True)


def test_files_that_are_here_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(hub.files[GEOMETRY])
    get(given={"da3": own})
    assert GEOMETRY not in {address for address, _ in hub.bodies()}
    with pytest.raises(WeightsError, match=r"--file lsig=…: apache is made of da3, tipsv2, tokenizer"):
        get(given={"lsig": own})
    with pytest.raises(CheckpointError, match="is not there"):
        get(given={"da3": tmp_path / "none"})


def test_wrong_files_are_named(hub: Hub, tmp_path: Path) -> None:
    """The words' file where the geometry's was wanted, and half a file."""
    wrong, half = tmp_path / "wrong.safetensors", tmp_path / "half.safetensors"
    wrong.write_bytes(hub.files[WORDS])
    half.write_bytes(hub.files[GEOMETRY][:5000])
    for path, said in ((wrong, r"wrong\.safetensors"), (half, r"half\.safetensors.*truncated")):
        with pytest.raises(CheckpointError, match=said):
            get(given={"da3": path})
        assert not place_of("apache").exists()


def test_a_folder_that_cannot_be_written(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FF3R_WEIGHTS", str(tmp_path / "file" / "weights"))
    with pytest.raises(WeightsError, match=r"cannot be written .* set FF3R_WEIGHTS"):
        get()
    assert not hub.asked


def command(hub: Hub, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`ff3r`, to which `apache` is the stand-in, told by the environment where the hub is."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.standin_hub", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_obeys_the_environment_and_ctrl_c(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.pause = 0.05
    first = command(hub, tmp_path, "weights", "get", "apache")
    deadline = time.monotonic() + 60
    while not hub.bodies() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=60)
    assert first.returncode == 130 and "interrupted" in told and "Traceback" not in told
    assert not place_of("apache").exists()
    hub.pause = 0.0
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf/hub"))
    assert main(["weights", "get", "apache"]) == 0
    assert f"{place_of('apache')}: " in capfd.readouterr().out
    (_, rest) = [sent for address, sent in hub.bodies() if address == GEOMETRY]
    assert rest.startswith("bytes="), "the second run went on where the first was"
