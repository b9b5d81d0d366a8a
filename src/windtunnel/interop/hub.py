"""Names on the Hugging Face hub, as local folders."""

from pathlib import Path

from windtunnel.errors import InputError

_SMALL = ["*.json", "*.jinja", "merges.txt", "tokenizer.model", "*.safetensors"]


def local_folder(source: str, revision: str | None = None) -> Path:
    """The folder itself, or that of a hub name, fetched if there is a network. Raises `InputError` if neither is."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{source}: is a file; name the folder that holds config.json and the weights")
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"{source}: no such folder")
    try:
        from huggingface_hub import list_repo_files, snapshot_download
    except ImportError as error:
        raise InputError(f"{source}: no such folder; for names on the hub: pip install 'windtunnel[hf]'") from error
    try:
        files = list_repo_files(source, revision=revision)
        safe = any(name.endswith(".safetensors") for name in files)
        wanted = _SMALL if safe else [*_SMALL, "pytorch_model*.bin"]
        return Path(snapshot_download(source, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the hub's client has a dozen kinds, and a network has its own
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{source}: no such folder, and not to be had from the Hugging Face hub: "
            f"{reason[0] if reason else type(error).__name__}"
        ) from error
