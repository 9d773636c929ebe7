"""Uploads an exported folder to the Hugging Face hub."""

from pathlib import Path

from selftrain.errors import RunError, UsageError


def contents(folder: Path) -> list[tuple[str, int]]:
    """(name, bytes) of each file that `push` uploads, by name."""
    return sorted((path.name, path.stat().st_size) for path in folder.iterdir() if path.is_file())


def push(folder: Path, repo: str, private: bool) -> str:
    """Upload `folder` as the hub's model `repo`, which is made if it is not there; returns its address.

    private  whether a new repository is private, and one that is there has to be

    Raises UsageError where `repo` is no id, nobody is logged in, or it shall be private and is public; RunError where the hub refuses
    or does not answer.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if get_token() is None:
        raise UsageError(
            "--push: no token for the hub; log in with `hf auth login`, or set HF_TOKEN to a token that may write"
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        # One that was there keeps its visibility.
        if private and not api.model_info(repo).private:
            raise UsageError(
                f"--private: {repo} is public, and nothing was uploaded; make it private on the hub, or name another id"
            )
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[name for name, _ in contents(folder)],
            commit_message="Reranker, exported by selftrain",
        )
    except HFValidationError as error:
        raise UsageError(f"--push {repo}: expected an id such as NAME/MODEL: {error}") from error
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"--push {repo}: the hub did not take the folder: {reason}") from error
    return str(done.repo_url)
