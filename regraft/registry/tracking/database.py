"""The only use of MLflow's private database API."""

from pathlib import Path

from regraft.registry.tracking.runs import SQLITE


def create_or_upgrade_database(uri: str, artifacts: Path) -> None:
    """Create the tables of MLflow's SQLite database, or upgrade them to the installed MLflow.

    MLflow's public way to upgrade is the command `mlflow db upgrade`. The command makes the same
    calls of `_upgrade_db` and `create_sqlalchemy_engine_with_retry` from mlflow.store.db.utils.
    These names and `SqlAlchemyStore` are private. Seen in MLflow 3.17.2.

    Two processes must not call this at the same time on one database.

    Args:
        uri: of the database, "sqlite:///PATH".
        artifacts: folder for the artifacts of the experiment "Default". Without it, MLflow would
            use a folder in the working directory.
    """
    from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine_with_retry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if Path(uri.removeprefix(SQLITE)).exists():
        _upgrade_db(create_sqlalchemy_engine_with_retry(uri))
    SqlAlchemyStore(uri, str(artifacts))
