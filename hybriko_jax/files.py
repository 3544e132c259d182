"""Files that are whole or not there."""

from pathlib import Path


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place and moves it there: a kill leaves the old one."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)
