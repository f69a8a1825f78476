"""A run folder on object storage: a local one, which is copied there while the run goes on."""

import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfsft.errors import UsageError, UserError

SECONDS_BETWEEN_COPIES = 30


def is_url(folder: str | None) -> bool:
    """Whether a folder is on object storage, such as `gs://bucket/runs/a`."""
    return "://" in (folder or "")


@contextmanager
def local_copy(url: str, keep: bool = True) -> Iterator[Path]:
    """Gives a local folder with what lies at `url`, and copies there what is changed in it.

    Args:
        url: Of any storage that fsspec knows.
        keep: Copy back, twice a minute and at the end; workers that are not the chief do not.
    """
    remote = RemoteFolder(url)
    local = Path(tempfile.mkdtemp(prefix="tfsft-"))
    remote.download(local)
    done = threading.Event()
    copying = threading.Thread(target=_keep_copying, args=(remote, local, done), daemon=True)
    try:
        if keep:
            copying.start()
        yield local
    finally:
        if keep:
            done.set()
            copying.join()
            _copy_at_last(remote, local)
        shutil.rmtree(local, ignore_errors=True)


def _keep_copying(remote: "RemoteFolder", local: Path, done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_COPIES):
        try:
            remote.upload(local)
        except Exception as error:  # the next copy may succeed; training does not wait for it
            print(f"Note: not copied to {remote.url} for now: {error}", file=sys.stderr)


def _copy_at_last(remote: "RemoteFolder", local: Path) -> None:
    try:
        remote.upload(local)
    except Exception as error:
        raise UserError(
            f"The run could not be copied to {remote.url}: {error}",
            f"All of it is in {local} on this machine.",
            "Copy it by hand before the machine goes away.",
        ) from error


class RemoteFolder:
    """A folder on object storage, or anything else that fsspec knows.

    Args:
        url: Such as `gs://bucket/runs/a`.

    Raises:
        UsageError: When the storage is not known, or its package not installed.
    """

    def __init__(self, url: str):
        import fsspec

        self.url = url.rstrip("/")
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"The folder {url} cannot be used: {str(error).rstrip('.')}.",
                "A folder on object storage is written as gs://bucket/folder or s3://bucket/a.",
                "Install what fsspec needs for it: gcsfs for gs, s3fs for s3, adlfs for az.",
            ) from error
        self._copied: dict[str, tuple[int, int]] = {}  # file -> size and time when it was copied

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file, or None where there is none."""
        with self._explaining():
            try:
                return self.files.cat_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return None

    def is_empty(self) -> bool:
        """Whether nothing lies there."""
        with self._explaining():
            return not self._names()

    def download(self, folder: Path) -> None:
        """Copies everything into a local folder."""
        with self._explaining():
            for name in self._names():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(f"{self.root}/{name}", str(target))
                self._copied[name] = _stamp(target)

    def upload(self, folder: Path) -> None:
        """Copies what is new or changed in a local folder, then removes what is gone from it.

        So a checkpoint goes only when a newer one is there; one that is copied in part when the
        machine dies does not fit its hash and is passed over.
        """
        here = {str(path.relative_to(folder)): path for path in _lasting_files(folder)}
        for name, path in here.items():
            try:
                stamp = _stamp(path)
                if self._copied.get(name) != stamp:
                    target = f"{self.root}/{name}"
                    self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self.files.put_file(str(path), target)
                    self._copied[name] = stamp
            except FileNotFoundError:
                if path.exists():
                    raise
        for name in self._copied.keys() - here.keys():
            self.files.rm_file(f"{self.root}/{name}")
            del self._copied[name]

    def _names(self) -> list[str]:
        self.files.invalidate_cache()
        return [path[len(self.root) + 1 :] for path in self.files.find(self.root)]

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each storage has its own
            raise UserError(
                f"{self.url} cannot be read: {error}",
                "The bucket must exist, and this machine must be allowed to read and write it.",
            ) from error


def _lasting_files(folder: Path) -> list[Path]:
    """The files of a run folder without those that are being written or go away by themselves."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "features-")):
            continue
        if path.is_dir():
            files += _lasting_files(path)
        else:
            files.append(path)
    return files


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
