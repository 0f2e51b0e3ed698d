"""LitServe with an empty model; a separate module, because its worker imports it."""

import sys

from fastapi import Request
from litserve import LitAPI, LitServer


class Nothing(LitAPI):
    """Returns the number in a JSON body, or the size of the picture in a form."""

    def setup(self, device: str) -> None:
        """Load nothing."""

    def decode_request(self, request: Request) -> float:
        """Return the input; LitServe passes the parsed body."""
        return request["file"].size if "file" in request else request["input"]

    def predict(self, x: float) -> float:
        """Return the number."""
        return x

    def encode_response(self, output: float) -> dict[str, float]:
        """Return the body of the answer."""
        return {"output": output}


if __name__ == "__main__":
    from benchmarks.empty_litserve import Nothing as Importable

    server = LitServer(Importable(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error")
