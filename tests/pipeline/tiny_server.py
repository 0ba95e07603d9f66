"""MLflow's scoring server for a model in a thread of this process; it starts in 0.1 s."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import uvicorn
from mlflow.pyfunc import scoring_server

from regraft.registry.parity import open_model


@contextmanager
def served_here(model: Path) -> Iterator[SimpleNamespace]:
    """Yield a server of this process that answers like `mlflow models serve`; wait() is its URL."""
    with open_model(model) as loaded, socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(scoring_server.init(loaded), log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()  # requests wait in the listener's queue until the server runs
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield SimpleNamespace(wait=lambda: url)
        finally:
            server.should_exit = True
            thread.join()
