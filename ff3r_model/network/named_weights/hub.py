"""Downloads from the Hugging Face hub: resumable across runs, checked, into the hub's own cache.

`huggingface_hub` does the talking and keeps the cache, by its environment: HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and
HF_TOKEN. By itself it begins an interrupted download anew; so the bytes are written to a file of ours in its cache
first, which the next run goes on with.
"""

from __future__ import annotations

import errno
import logging
import re
import shutil
from pathlib import Path
from typing import NoReturn

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import HfFileMetadata, http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers

from ff3r_model.core.trusted import locked
from ff3r_model.network.named_weights.digests import check_digest, sha256_of
from ff3r_model.network.named_weights.places import WeightsError
from ff3r_model.network.named_weights.recipes import Source

log = logging.getLogger(__name__)

SHA256 = re.compile("[0-9a-f]{64}")
SUFFIX = ".ff3r.incomplete"
"""Of a file whose bytes are still coming."""


def fetch(source: Source) -> Path:
    """A public file in the hub's cache, downloaded where it is not there in its newest version, and checked.

    Raises WeightsError saying what is wrong and what to do.
    """
    if constants.is_offline_mode():
        path = _cached(source)
        if path is None:
            raise WeightsError(
                f"{source.address} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch it: unset "
                f"it, or fetch the file elsewhere and give it by --file {source.key}=PATH"
            )
        log.info("HF_HUB_OFFLINE is set: %s as it is in %s", source.address, constants.HF_HUB_CACHE)
    else:
        path = _online(source)
    check_digest(source.address, path)
    return path


def _online(source: Source) -> Path:
    """The newest version; the one in the cache where the hub cannot be reached."""
    try:
        about = get_hf_file_metadata(hf_hub_url(source.repository, source.file))
        _download(source, about)
        return Path(hf_hub_download(source.repository, source.file))  # finds the blob, and enters it in the cache
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled) as error:
        _explain_refusal(source, error)
        if path := _cached(source):
            log.warning(
                "%s cannot be reached (%s): %s as it is in the cache", constants.ENDPOINT, error, source.address
            )
            return path
        raise WeightsError(
            f"{constants.ENDPOINT} cannot be reached for {source.address} ({_short(error)}). Is there a network, "
            "and is HF_ENDPOINT right? What has come so far is kept, and the next try goes on from there"
        ) from error
    except OSError as error:
        _explain_disk(source, error)


def _download(source: Source, about: HfFileMetadata) -> None:
    """Bring a file's bytes into the cache as the blob that the hub's own code looks for."""
    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=source.repository, repo_type="model"), "blobs")
    if about.etag is None or about.commit_hash is None:
        raise WeightsError(f"{constants.ENDPOINT} does not answer as a Hugging Face hub does: is HF_ENDPOINT right?")
    blobs.mkdir(parents=True, exist_ok=True)
    blob = blobs / about.etag
    with locked(blobs / f".{about.etag}.ff3r.lock", lambda: log.warning("another program fetches %s", source.address)):
        if blob.exists():
            return
        part = blobs / f"{about.etag}{SUFFIX}"
        there = _came(part, about.size)
        _check_space(source, blobs, (about.size or 0) - there)
        goes_on = f", of which {there / 1e6:,.1f} MB came before" if there else ""
        log.info("fetching %s from %s: %.1f MB%s", source.address, constants.ENDPOINT, (about.size or 0) / 1e6, goes_on)
        with part.open("ab") as file:
            http_get(
                hf_hub_url(source.repository, source.file, revision=about.commit_hash),
                file,
                resume_size=there,
                headers=build_hf_headers(),
                expected_size=about.size,
                displayed_filename=source.address,
            )
        _check_announced(source, part, about.etag)
        part.replace(blob)


def _came(part: Path, size: int | None) -> int:
    """Bytes of an earlier try that can be gone on with."""
    there = part.stat().st_size if part.exists() else 0
    if size is not None and there > size:
        part.unlink()
        return 0
    return there


def _check_announced(source: Source, part: Path, etag: str) -> None:
    """Compare what came with the SHA-256 that the hub announces of large files."""
    if SHA256.fullmatch(etag) and (found := sha256_of(part)) != etag:
        part.unlink()
        raise WeightsError(
            f"{source.address} came damaged: its SHA-256 is {found}, and {constants.ENDPOINT} says {etag}. It was "
            "removed; try again"
        )


def _cached(source: Source) -> Path | None:
    try:
        return Path(hf_hub_download(source.repository, source.file, local_files_only=True))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        return None


def _check_space(source: Source, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsError(
            f"{source.address} needs {needed / 1e9:.1f} GB more, and {folder} has {free / 1e9:.1f} GB free: make room, "
            "or set HF_HOME to a folder on a larger disk"
        )


def _explain_refusal(source: Source, error: Exception) -> None:
    """Raise WeightsError for what the hub refuses; nothing for a hub that is down or out of reach."""
    page = f"{constants.ENDPOINT}/{source.repository}"
    if isinstance(error, GatedRepoError):
        raise WeightsError(
            f"{source.address} is gated: log in at {page} and accept its terms there, make a token at "
            f"{constants.ENDPOINT}/settings/tokens, and set HF_TOKEN to it (or run `hf auth login`)"
        ) from error
    if isinstance(error, RemoteEntryNotFoundError):
        raise WeightsError(
            f"{page} has no file {source.file}: its publisher may have moved it. Look there, and give the file by "
            f"--file {source.key}=PATH"
        ) from error
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        raise WeightsError(
            f"the hub refuses {source.address}: {page} is not there, or only for those who are logged in. Look there; "
            "with an account of the hub, set HF_TOKEN to a token of it (or run `hf auth login`)"
        ) from error
    if 400 <= status < 500:
        raise WeightsError(f"the hub refuses {source.address}: {_short(error)}") from error


def _explain_disk(source: Source, error: OSError) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise WeightsError(
            f"the disk of {constants.HF_HUB_CACHE} is full ({error.strerror}) before {source.address} was whole: make "
            "room, or set HF_HOME to a folder on a larger disk. What has come so far is kept"
        ) from error
    raise WeightsError(f"{source.address} cannot be fetched to {constants.HF_HUB_CACHE}: {_short(error)}") from error


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
