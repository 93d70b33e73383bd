"""Checkpoints from the hub: only the files that a checkpoint consists of are fetched."""

from __future__ import annotations

import os
from pathlib import Path

from scdiva_core.errors import HubError
from scdiva_core.model.layout import COMPANION_FILES, VOCABULARY_FILES, WEIGHT_FILES

_LISTING_SECONDS = 10
OFFLINE_HINT = "Check the connection, or download the checkpoint elsewhere and give the folder's path."


def download_checkpoint(repo_id: str) -> Path:
    """Fetch one checkpoint into the hub's cache and return its folder.

    Parameters
    ----------
    repo_id
        ``"owner/name"``. The server is that of the ``HF_ENDPOINT`` variable when it is set.

    Raises
    ------
    HubError
        The hub cannot be reached, or the repository holds no weights.
    """
    from huggingface_hub import HfApi, hf_hub_download  # slow to import, and only needed here
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        # Not list_repo_files: that retries for half a minute before it admits to be offline.
        info = HfApi(endpoint=endpoint).model_info(repo_id, timeout=_LISTING_SECONDS)
        names = [file.rfilename for file in info.siblings or ()]
        weights = next((name for name in WEIGHT_FILES if name in names), None)
        if weights is None:
            msg = f"{repo_id} holds no weights among its {len(names)} files."
            raise HubError(msg, f"Expected one of {', '.join(WEIGHT_FILES)}.")
        wanted = [name for name in (*VOCABULARY_FILES, *COMPANION_FILES) if name in names]
        paths = [hf_hub_download(repo_id, name, endpoint=endpoint) for name in [*wanted, weights]]
    except RepositoryNotFoundError as error:
        msg = f"The hub has no repository {repo_id!r} that you may read."
        raise HubError(msg, "Check the spelling; for a private one log in with 'hf auth login'.") from error
    except HfHubHTTPError as error:
        msg = f"The hub refused {repo_id!r}: {str(error).splitlines()[0][:200]}"
        raise HubError(msg, OFFLINE_HINT) from error
    except (HTTPError, OSError) as error:
        return _cached(repo_id, error)
    return Path(paths[-1]).parent


def _cached(repo_id: str, error: Exception) -> Path:
    """Folder of an earlier download, for a machine that is offline now."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo_id, local_files_only=True))
    except LocalEntryNotFoundError:
        folder = None
    if folder is None or not any((folder / name).is_file() for name in WEIGHT_FILES):
        msg = f"The hub could not be reached for {repo_id!r} ({type(error).__name__})."
        raise HubError(msg, OFFLINE_HINT) from error
    return folder
