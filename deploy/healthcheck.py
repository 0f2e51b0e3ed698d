"""Exit with 0 if a port of this container answers 200: `healthcheck.py PORT PATH [LINE]`.

With LINE, such as `gamma_worker_up 1.0`, the answer must contain that line. It uses the standard
library only, and ignores proxy variables, unlike `urllib`.
"""

import sys
from http.client import HTTPConnection, HTTPException

_TIMEOUT = 4  # s; slightly less than the engine's limit


def main(port: str, path: str, line: str | None = None) -> int:
    """Send one request; print an error to stdout, where `docker inspect` shows it."""
    connection = HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        lines = response.read().decode(errors="replace").splitlines()
    except (OSError, HTTPException) as error:
        print(f"{path} on port {port}: {error!r}")
        return 1
    finally:
        connection.close()
    missing = line is not None and line not in lines
    print(f"{path} on port {port}: {response.status}" + (f" without {line!r}" if missing else ""))
    return 0 if response.status == 200 and not missing else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
