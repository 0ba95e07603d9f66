"""MLflow's scoring server for a model, in a thread of this process: up in a tenth of a second."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from mlflow.pyfunc import scoring_server

from regraft.registry.parity import opened


@contextmanager
def served_here(model: Path) -> Iterator[str]:
    """The URL of a server that answers for the model as `mlflow models serve` does."""
    with opened(model) as loaded, socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(scoring_server.init(loaded), log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()  # requests wait in the listener's queue until it is up
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
