"""Starts a worker on Dataflow with the secrets that it needs in its environment.

Dataflow gives containers no environment of their own, and what stands in an image, a template or a job can be read by
many. So the image names secrets, and this fetches them as the service account that the worker runs as (it needs
roles/secretmanager.secretAccessor):

  WRONGTURN_SECRETS="OPENAI_API_KEY=projects/P/secrets/openai/versions/3 WRONGTURN_REDIS_PASSWORD=projects/P/..."
"""

import os
import re
import sys
from collections.abc import Callable, Sequence

BOOT = "/opt/apache/beam/boot"
_NAMES = "WRONGTURN_SECRETS"
_ENTRY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<place>projects/[^/\s]+/secrets/[^/\s]+/versions/[^/\s]+)")


def fetch(place: str) -> str:
    """The value of a secret's version in Secret Manager."""
    from google.cloud import secretmanager

    response = secretmanager.SecretManagerServiceClient().access_secret_version(name=place)
    return str(response.payload.data.decode())


def add_secrets(get: Callable[[str], str] = fetch) -> None:
    """Puts the secrets that `WRONGTURN_SECRETS` names into this process's environment; what is there already stays.

    Raises:
      SystemExit: it names something in a way that is none. The message does not repeat it: it may be a secret.
    """
    for entry in os.environ.get(_NAMES, "").split():
        found = _ENTRY.fullmatch(entry)
        if not found:
            raise SystemExit(
                f"{_NAMES} must be NAME=projects/PROJECT/secrets/SECRET/versions/VERSION, several separated by blanks"
            )
        if found["name"] not in os.environ:
            os.environ[found["name"]] = get(found["place"])


def main(arguments: Sequence[str]) -> None:
    """Becomes Beam's boot with the same arguments."""
    add_secrets()
    os.execv(BOOT, [BOOT, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
