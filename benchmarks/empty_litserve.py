"""LitServe around a model that does nothing; a module of its own, as its worker imports it."""

import sys

from litserve import LitAPI, LitServer


class Nothing(LitAPI):
    """Gives back what it is given."""

    def setup(self, device: str) -> None:
        """There is no model to load."""

    def decode_request(self, request: dict[str, float]) -> float:
        """The number in the body."""
        return request["input"]

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
