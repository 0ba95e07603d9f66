"""From the current photos to an advice, and if it is to retrain, to a judged challenger."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from regraft.core.config import Config
from regraft.operations.retrain.start import pin_weights
from steps.advise import advise
from steps.begin import begin
from steps.choose_start import choose_start
from steps.conclude import conclude
from steps.evaluate import evaluate
from steps.find_champion import find_champion
from steps.fine_tune import fine_tune
from steps.freeze import freeze
from steps.ingest import ingest
from steps.interpolate import interpolate
from steps.load_pretrained import load_pretrained
from steps.measure_transfer import measure_transfer
from steps.mirror import mirror
from steps.promote import promote
from steps.register import register
from steps.revise import revise
from steps.split import split
from steps.sum_up import sum_up


@pipeline(dynamic=True, execution_mode=ExecutionMode.FAIL_FAST)
def retrain(config: Config) -> None:
    """From the photos to the verdict, a stage a line; without a reason to act it ends early.

    The branches are in the DAG because a run that an orchestrator starts on a schedule has no
    client. The DAG is dynamic for that, and because it lists the photos when it runs: a static one
    would get the fingerprint of the day on which it was scheduled.
    """
    snapshot = begin(config).load()
    table = ingest(config.ingest, snapshot.photos)
    splits = split(table, config.split)
    advice = advise(splits, config)
    decision = advice.load().decision
    if decision in ("skip", "postpone"):
        conclude(snapshot, advice, splits, config)
        return
    if decision == "revise":
        pretrained, challenger, blend, started_from = revise(splits, config)
    else:
        champion, url = (output.load() for output in find_champion(config.tracking))
        backbone, started_from = choose_start(splits, pin_weights(config), champion, url)
        pretrained = load_pretrained(backbone.load(), splits, config.classes)
        plan = freeze(pretrained, config.freeze)
        tuned = fine_tune(pretrained, plan, splits, config.tune, config.embed, config.tracking)
        challenger, blend = interpolate(tuned, splits, config, champion)
    transfer = measure_transfer(pretrained, splits, config.tune, config.embed)
    report = evaluate(challenger, transfer, splits, config.evaluate, config.embed)
    version = register(challenger, report, splits, config)
    verdict = promote(version, splits, config, report)
    mirror(config.tracking)
    trained = sum_up(verdict, report, started_from, blend)
    conclude(snapshot, advice, splits, config, trained)
