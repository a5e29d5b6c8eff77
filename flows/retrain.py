"""The flow `retrain`: a new model if data or settings have changed, and the better of it and the champion serves."""

from dataclasses import replace

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows.comparison import Comparison
from flows.contest.contest import JUDGED, PAIRS, Contest
from flows.contest.decision import Decision, decide
from flows.evaluate import show_comparison
from flows.home.locks import only_one
from flows.home.settings import Settings
from flows.lineage import tags as tag
from flows.lineage.registry import CHALLENGER, CHAMPION, Registry, Version, name_of
from flows.lineage.stage_run import StageRun
from flows.lineage.tracking import Lineage
from flows.pages import artifacts
from flows.parameters import RetrainParameters, validated
from flows.recipes.methods import coupling_of
from flows.requests import SurveyRequest
from flows.results import EvaluateResult, PairResult, RetrainResult, Survey, TrainResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, show_decided
from flows.stages.run_job import run_job
from flows.stages.surroundings import job_context, nested_under, shared_cluster
from pairflow.errors import JobFailedError
from pairflow.spec import CouplingSpec

SKIPPED = "Skipped"
"""Name of the state in which a run ends that had nothing to do; its type is COMPLETED."""


def _run_name() -> str:
    parameters = validated(RetrainParameters, flow_run.parameters["parameters"])
    return f"retrain {parameters.registered_as} {parameters.method} {parameters.preset}"


@flow(
    name="retrain",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def retrain(parameters: RetrainParameters) -> "State[RetrainResult]":
    """Couple, train and evaluate anew if data or settings have changed, and promote what is better beyond chance.

    One retraining at a time works on a registered model. If nothing has changed, or another run is at it, the run ends
    in the state `Skipped`, which says why. What an interrupted run finished is found again.
    """
    parameters = validated(RetrainParameters, parameters)
    name = name_of(parameters.registered_as)
    describe_run(tags=("retrain", parameters.dataset.name, parameters.registered_as, parameters.method))
    show_decided(parameters)
    holder = f"the run '{flow_run.name}' ({flow_run.id})"
    with only_one(Settings.read().home / "locks", f"retrain-{parameters.registered_as}", holder) as other:
        if other is not None:
            sentence = f"{other} is at it, and there is one at a time: start this again when that has ended"
            result = _nothing(name, sentence, None)
        else:
            result = _retrain(parameters, name)
    if result.outcome != "skipped":
        return Completed(message=result.sentence, data=result)
    get_run_logger().info("skipped: %s", result.sentence)
    artifacts.show_text(f"decision-{name}", f"{name}: skipped", f"## {name}\n\nSkipped: {result.sentence}.\n")
    return Completed(name=SKIPPED, message=result.sentence, data=result)


def _retrain(parameters: RetrainParameters, name: str) -> RetrainResult:
    study = parameters.study
    work = Comparison(study)
    with shared_cluster(parameters.store) as cluster:
        lineage = Lineage(cluster.settings)
        registry = Registry(lineage)
        champion = registry.find(name, CHAMPION)
        # Where nothing serves yet, the model that was not good enough for it is the one to be better than.
        challenger = registry.find(name, CHALLENGER) if champion is None else None
        rival = champion or challenger
        if rival is None:
            registry.check_never_served(name)
        against = f"{name}@{CHAMPION if challenger is None else CHALLENGER}"
        request = SurveyRequest(
            dataset=parameters.dataset,
            engine=parameters.engine,
            coupling=_coupling(work),
            rival=None if rival is None else against,
            extend=None if rival is None or not parameters.extend else rival.tags.get(PAIRS),
        )
        survey = run_job("survey", request, Survey, store=parameters.store).result
        contest = Contest(parameters, work.preset, name, survey, champion, challenger)
        contest.check_source()
        if (known := contest.nothing_to_do(registry)) is not None:
            return _nothing(name, known, champion)
        get_run_logger().info("a model is made: %s", contest.reason)
        command = command_line("retrain", parameters)
        run = lineage.run(
            parameters.dataset.name,
            "retrain",
            contest.fingerprint,
            name=f"retrain {parameters.registered_as}",
            specs=work.specs,
            context=job_context(submission_id=None, command=command, preset=parameters.preset),
            about={"method": parameters.method},
        )
        with run as parent, nested_under(parent.run_id, parent.experiment_id, command):
            pairs, candidate = _make(work, _to_extend(request, survey), cluster.settings)
            made_of = contest.tags_of(next(iter(pairs.values()), None))
            parent.tag({tag.DATASET_DIGEST: survey.dataset_digest, tag.CANDIDATE_MODEL: candidate.mlflow_model_id})
            if champion is not None and champion.model_id == candidate.mlflow_model_id:
                # As of a version that was registered by hand, which does not say what it was made of.
                sentence = f"this data and these settings make the model of version {champion.number}, the champion"
                parent.tag({tag.OUTCOME: "skipped", tag.DECISION: sentence})
                registry.tag(champion, made_of)
                return _nothing(name, sentence, champion)
            # A challenger that is judged anew, as at more steps, is the candidate itself.
            another = contest.comparable and rival is not None and rival.model_id != candidate.mlflow_model_id
            others = (against,) if another else ()
            evaluation = work.evaluate(pairs, others, lineage=lineage, parent=parent)
            show_comparison(evaluation, parameters.dataset.name)
            _check_rival(registry, contest, evaluation)
            version = registry.register(
                parameters.registered_as,
                candidate.mlflow_model_id,
                description=f"Made because {contest.reason}; not judged yet.",
                tags=made_of,
            )
            # A version that was there already may not say what it was made of, or was judged against another champion.
            registry.tag(version, made_of)
            decision = decide(contest, version, evaluation)
            if decision.serves is not None:
                registry.promote(decision.serves, decision.page)
            if decision.outcome == "challenger":
                registry.challenge(version, decision.page)
                if decision.serves is not None:  # the challenger of before: this one was judged against it already
                    judged = replace(contest, champion=decision.serves).fingerprint
                    registry.tag(version, {JUDGED: judged})
            _show(parent, name, decision, version)
    return RetrainResult(
        outcome=decision.outcome,
        sentence=decision.sentence,
        name=name,
        champion=_number(registry.find(name, CHAMPION)),
        candidate=version.number,
        evaluation=evaluation,
        mlflow_run_id=parent.run_id,
    )


def _to_extend(request: SurveyRequest, survey: Survey) -> str | None:
    """URL of the rival's pairs, if they are to be extended and can be."""
    if request.extend is None or survey.cannot_extend is None:
        return request.extend
    get_run_logger().warning("all rows are coupled, not only the new ones: %s", survey.cannot_extend)
    return None


def _coupling(work: Comparison) -> CouplingSpec | None:
    """How the sources of the method are coupled, if they are: one method has pairs of one kind at most."""
    return next((coupling_of(work.preset, group) for group in work.pair_groups), None)


def _make(work: Comparison, extend: str | None, settings: Settings) -> tuple[dict[str, PairResult], TrainResult]:
    """The candidate, and the pairs that it or its base is trained on; what is there already is found."""
    pairs = work.pair(extend)
    trained = work.train(pairs, settings)
    work.own_pairs(trained)
    refined = work.refine(pairs, trained, settings)
    (candidate,) = (refined or trained).values()
    return pairs, candidate


def _check_rival(registry: Registry, contest: Contest, evaluation: EvaluateResult) -> None:
    """The contest is about the champion or challenger that was there when it began, and about no other.

    Raises:
        JobFailedError: it was replaced meanwhile, as by a rollback.
    """
    then, champion = contest.rival, registry.find(contest.name, CHAMPION)
    role, now = CHAMPION, champion
    if champion is None and contest.champion is None and then is not None:
        role, now = CHALLENGER, registry.find(contest.name, CHALLENGER)
    measured = [each.mlflow_model_id for each in evaluation.models[1:]]
    if (
        _number(then) != _number(now)
        or (then is not None and role != contest.role)
        or (then is not None and measured not in ([], [then.model_id]))
    ):
        raise JobFailedError(
            f"the {contest.role} of {contest.name} was version {_number(then)} when this run began, and the {role} is "
            f"version {_number(now)} now; the new model is kept: retry, to compare it with that one"
        )


def _show(parent: StageRun, name: str, decision: Decision, version: Version) -> None:
    """Tells the decision where people look: on the run's page in Prefect, and in MLflow."""
    artifacts.show_text(f"decision-{name}", f"{name}: {decision.outcome}", f"## {name}\n\n{decision.page}")
    parent.tag(
        {
            tag.OUTCOME: decision.outcome,
            tag.DECISION: decision.sentence,
            tag.VERSION: str(version.number),
            tag.REGISTERED_MODEL: name,
        }
    )
    parent.log(decision.figures)
    get_run_logger().info("%s", decision.sentence)


def _nothing(name: str, sentence: str, champion: Version | None) -> RetrainResult:
    return RetrainResult(
        outcome="skipped",
        sentence=sentence,
        name=name,
        champion=_number(champion),
        candidate=None,
        evaluation=None,
        mlflow_run_id=None,
    )


def _number(version: Version | None) -> int | None:
    return None if version is None else version.number
