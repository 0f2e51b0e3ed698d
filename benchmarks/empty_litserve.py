"""LitServe around a model that does nothing; a module of its own, as its worker imports it."""

import sys

from fastapi import Request
from litserve import LitAPI, LitServer


class Nothing(LitAPI):
    """Gives back the number in a JSON body, or how many bytes the picture in a form has."""

    def setup(self, device: str) -> None:
        """There is no model to load."""

    def decode_request(self, request: Request) -> float:
        """The input; of what is announced as a request, LitServe hands on the parsed body."""
        return request["file"].size if "file" in request else request["input"]

    def predict(self, x: float) -> float:
        """The same number."""
        return x

    def encode_response(self, output: float) -> dict[str, float]:
        """The body of the answer."""
        return {"output": output}


if __name__ == "__main__":
    from benchmarks.empty_litserve import Nothing as Importable

    server = LitServer(Importable(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error")
