"""Measuring, exporting, searching and training as functions: what the commands of `bench` do.

    import orchestrator

    from orchestrator import ExportCommand, MeasureCommand, ProfileCommand, Target

    orchestrator.profile(ProfileCommand(space="autovit-nano", target=Target("host"), budget_s=300), print).lut
    networks = ("autovit-xxs-paper", "timm:mobilenetv3_small_100")
    orchestrator.measure_networks(MeasureCommand(networks=networks, target=Target("host"))).networks
    orchestrator.export_networks(ExportCommand(networks="autovit-xxs-paper", output=Path("model.pte")))

A device is its name, or a `Target` that says how models run there too. Names are imported when they are first used;
none is that of a subpackage, which would take its place as soon as it is imported.
"""

from typing import TYPE_CHECKING

from luts.format.lazy import lazy_names

if TYPE_CHECKING:
    from luts.format.errors import BlocktimeError, UsageError
    from luts.format.provenance import __version__
    from orchestrator.devices.common.device import Access
    from orchestrator.journal.records import MeasurementRejectedError
    from orchestrator.measure.validate import Validation
    from orchestrator.tasks.blocks import BlocksCommand, MixerComparison, compare_mixers
    from orchestrator.tasks.breakdown import Breakdown, BreakdownCommand, break_down
    from orchestrator.tasks.compare import Comparison, compare_networks
    from orchestrator.tasks.doctor import BugReport, Need, doctor, write_bug_report
    from orchestrator.tasks.evaluate import Evaluation, evaluate
    from orchestrator.tasks.evaluation_options import (
        CompareOptions,
        EvalConfig,
        EvalOptions,
        SensitivityOptions,
    )
    from orchestrator.tasks.export import (
        ExportBlocksCommand,
        ExportCommand,
        Lowering,
        export_blocks,
        export_networks,
    )
    from orchestrator.tasks.fleet import FleetCommand, FleetProfile, profile_fleet
    from orchestrator.tasks.measure import MeasureCommand, measure_networks
    from orchestrator.tasks.measured import MeasuredNetwork, MeasuredNetworks
    from orchestrator.tasks.plan import PlannedProfile, PlanOptions, ProfileCommand, plan_profile
    from orchestrator.tasks.predict import predict_module
    from orchestrator.tasks.profile import Profile, profile
    from orchestrator.tasks.progress import Note, Progress, Step
    from orchestrator.tasks.report import report_lut, report_run
    from orchestrator.tasks.runs import PastLatency, PastRun, find_past_run, past_runs, run_latencies
    from orchestrator.tasks.search import find_network
    from orchestrator.tasks.search_options import (
        ConstraintOptions,
        SearchCommand,
        SettingOptions,
        TargetOptions,
    )
    from orchestrator.tasks.sensitivity import Sensitivity, measure_sensitivity
    from orchestrator.tasks.shared_luts import (
        PullOptions,
        PushOptions,
        SharedOptions,
        pull_lut,
        push_lut,
        shared_luts,
    )
    from orchestrator.tasks.suite import MeasuredSuite, SuiteCommand, run_suite
    from orchestrator.tasks.sustained import SustainedCommand, SustainedRun, measure_sustained, read_sustained
    from orchestrator.tasks.target import Target
    from orchestrator.tasks.train import TrainResult, train_classifier, train_dense, train_qat
    from orchestrator.tasks.train_options import ClassifierOptions, DenseOptions, QatOptions
    from orchestrator.tasks.trained import Trained
    from orchestrator.tasks.validate import ValidateCommand, validate
    from orchestrator.winner.result import FoundNetwork
    from orchestrator.wire.errors import DeviceError
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
