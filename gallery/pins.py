"""The lock file that ships with the package, by section. Pure.

`constraints.txt` pins every package; `# [name]` begins a section, the packages of one set-up.
"""

import re
from pathlib import Path

from gallery.errors import InstallError

SHIPPED = Path(__file__).with_name("constraints.txt")


def pins_of(text: str, sections: tuple[str, ...]) -> tuple[str, ...]:
    """The pins, as "name==version", of those sections.

    Raises:
        InstallError: there is no such section.
    """
    parts = re.split(r"^# \[([\w-]+)\]$", text, flags=re.MULTILINE)
    by_section = dict(zip(parts[1::2], parts[2::2], strict=True))
    for section in sections:
        if section not in by_section:
            raise InstallError(f"this version of Shoal has no pins for {section}", code="unsupported")
    lines = (line.strip() for section in sections for line in by_section[section].splitlines())
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
