"""Exit with 0 if a port of this container answers 200: `healthcheck.py PORT PATH`.

Standard library only and deaf to proxy variables, unlike `urllib`.
"""

import sys
from http.client import HTTPConnection, HTTPException

_TIMEOUT = 4  # s; a little less than the engine allows


def main(port: str, path: str) -> int:
    """Ask once; say on stdout what is wrong, where `docker inspect` shows it."""
    connection = HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        print(f"{path} on port {port}: {error!r}")
        return 1
    finally:
        connection.close()
    print(f"{path} on port {port}: {status}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
