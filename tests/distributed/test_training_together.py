"""One model on several processes: the same data, the same losses, the same weights as one process."""

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import windtunnel as wt
from tests.distributed import processes, work
from tests.proof import Proof
from windtunnel import recipes
from windtunnel.checkpoint import load
from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import Dataset
from windtunnel.distributed.mesh import Mesh
from windtunnel.distributed.team import Team
from windtunnel.distributed.tensor import cut
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.interop.exporting import export_run
from windtunnel.ledger.memory import Memory
from windtunnel.training import fitting
from windtunnel.training.fitting import check_team
from windtunnel.training.run import train

ONE_THREAD = Execution(device="cpu", threads=1)
STEPS = 5e-6  # losses and weights after three steps; norms relative
CURVE = 2e-5  # losses over 40 steps, in nats
WEIGHTS = 1e-4  # after 40 steps

# What goes through sums over parts of a tensor or of a batch, and so could be wrong without a word. Some weights of
# experts and all biases of keys have gradients that are zero but for rounding, of which Adam would make whole steps:
# its eps is above that.
CASES: dict[str, dict[str, Any]] = {
    "clipping, z-loss, unequal masks": {"recipe": "palm"},
    "one micro-batch": {"recipe": "llama", "accumulation": 1},
    "micro-batches that processes share": {"recipe": "llama", "accumulation": 2},
    "parameter scaling": {"recipe": "palm", "optimiser": "adafactor"},
    "projection on the sphere": {"recipe": "ngpt", "clip": None},
    "experts": {"recipe": "mixtral", "accumulation": 4, "eps": 1e-5},
    "experts with capacity and noise": {"recipe": "switch", "accumulation": 4, "eps": 1e-5},
    "biases": {"recipe": "gpt3", "optimiser": "adam", "eps": 1e-5},
    "recomputed activations": {"recipe": "palm", "recompute": True},
    "sizes that do not divide": {"recipe": "llama", "sizes": {"width": 18, "heads": 3, "hidden": 35, "vocab": 67}},
}


def _compare(mesh: str, count: int, cases: dict[str, Any], folder: Path) -> dict[str, float]:
    alone, together = folder / "alone", folder / "together"
    alone.mkdir()
    together.mkdir()
    one = work.steps(cases, None, str(alone))
    many = processes.run(count, "tests.distributed.work:steps", cases, mesh, str(together))
    worst = {"losses": 0.0, "norms": 0.0, "weights": 0.0}
    for label, expected in one.items():
        for found in (each[label] for each in many):
            assert found["losses"] == pytest.approx(expected["losses"], abs=STEPS), label
            assert found["norms"] == pytest.approx(expected["norms"], rel=2e-5), label
            assert found["layers"].keys() == expected["layers"].keys(), label
            for name, values in expected["layers"].items():
                assert found["layers"][name] == pytest.approx(values, abs=STEPS), (label, name)
        left, right = (load(side / label).tensors["model"] for side in (alone, together))
        assert left.keys() == right.keys()
        apart = max(float((left[name] - right[name]).abs().max()) for name in left)
        assert apart < STEPS, label
        found = many[0][label]
        worst["weights"] = max(worst["weights"], apart)
        pairs = zip(found["losses"], expected["losses"], strict=True)
        worst["losses"] = max(worst["losses"], *(abs(ours - theirs) for ours, theirs in pairs))
        norms = zip(found["norms"], expected["norms"], strict=True)
        worst["norms"] = max(worst["norms"], *(abs(ours / theirs - 1) for ours, theirs in norms))
    return worst


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    _compare("shard=2", 2, {"clipping, z-loss, unequal masks": {"recipe": "palm", "optimiser": "adafactor"}}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "count"),
    [
        ("shard=2", 2),
        ("replicate=2", 4),
        ("shard=4", 4),
        ("replicate=2,shard=1", 2),
        ("tensor=2", 2),
        ("tensor=2", 4),
        ("context=2", 2),
        ("replicate=2,context=2", 4),
        ("context=2,tensor=2", 4),
        ("expert=2", 2),
        ("expert=2", 4),
        ("replicate=2,expert=2", 4),
    ],
)
def test_steps_equal_those_of_one_process(mesh: str, count: int, tmp_path: Path, proof: Proof) -> None:
    uncut = {"tensor": ("experts", "do not divide"), "context": ("experts",)}
    left_out = [words for axis, unfit in uncut.items() if axis in mesh for words in unfit]
    cases = {label: case for label, case in CASES.items() if not any(words in label for words in left_out)}
    if "expert" in mesh:
        cases = {label: case for label, case in CASES.items() if "experts" in label}
    proof(f"training steps on {count} processes, {mesh}", "one process", **_compare(mesh, count, cases, tmp_path))


@pytest.mark.slow
def test_experts_on_many_devices_give_the_curve_of_one(
    make_spec: Any, make_settings: Any, dataset: Dataset, tmp_path: Path
) -> None:
    settings, spec = make_settings(batch_size=8, tokens=4096, accumulation=4), make_spec("switch")
    one = train(spec, settings, dataset, tmp_path / "1", ONE_THREAD, events=False)
    for count in (2, 4):
        arguments = (str(dataset.folder), str(tmp_path / f"{count}"), spec.to_json(), settings.to_json(), "expert=2")
        for part in processes.run(count, "tests.distributed.work:run", *arguments):
            assert part["result"]["horizons"]["1.0"]["loss"] == pytest.approx(one.loss, abs=CURVE)
        assert _losses(tmp_path / f"{count}") == pytest.approx(_losses(tmp_path / "1"), abs=CURVE)
        assert _weights_apart(tmp_path / f"{count}", tmp_path / "1") < WEIGHTS


@pytest.mark.slow
def test_every_recipe_takes_the_steps_of_one_process(tmp_path: Path) -> None:
    # Plain descent: Adam would make whole steps of gradients that are zero but for rounding.
    common = {"accumulation": 4, "optimiser": "sgd", "learning_rate": 0.1}
    cases = {name: {"recipe": name, **common} for name in recipes.names()}
    _compare("shard=2", 2, cases, tmp_path)


@pytest.mark.slow
def test_pods_hold_the_same_bits(tmp_path: Path) -> None:
    """Two replicas, each in two parts: PaLM's pods were bit-identical."""
    cases = {label: CASES[label] for label in ("parameter scaling", "projection on the sphere")}
    first, second, third, fourth = processes.run(4, "tests.distributed.work:steps", cases, "replicate=2,shard=2", None)
    for label in cases:
        assert first[label]["replica"] == third[label]["replica"]
        assert second[label]["replica"] == fourth[label]["replica"]
        assert first[label]["replica"] != second[label]["replica"]


def _losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def _weights_apart(left: Path, right: Path) -> float:
    pairs = zip(wt.load(left).model.parameters(), wt.load(right).model.parameters(), strict=True)
    return max(float((ours - theirs).detach().abs().max()) for ours, theirs in pairs)


@pytest.mark.slow
def test_curves_and_changes_of_the_number_of_processes(
    make_spec: Any, make_settings: Any, dataset: Dataset, tmp_path: Path, proof: Proof
) -> None:
    """1, 2 and 4 processes train alike; a run of 4 goes on with 2 and with 1, one of 1 with 4; horizons, ramp, skip."""
    settings = make_settings(
        horizons=(0.5, 1.0), evaluation_tokens=300, batch_size=8, tokens=4096, ramp=((0.5, 0.4),), skips=((5, 8),)
    )
    spec = make_spec("palm")
    one = train(spec, settings, dataset, tmp_path / "1", ONE_THREAD, events=False)
    common = (spec.to_json(), settings.to_json())

    def together(count: int, name: str, mesh: str | None = None, **trouble: Any) -> list[Any]:
        arguments = (str(dataset.folder), str(tmp_path / name), *common, mesh)
        return processes.run(count, "tests.distributed.work:run", *arguments, **trouble)

    for count, mesh in ((2, None), (4, "replicate=2"), (2, "context=2"), (4, "shard=2,context=2")):
        folder = tmp_path / f"{count} {mesh}"
        found = together(count, folder.name, mesh)
        for part in found:
            assert part["result"]["batch_hash"] == one.batch_hash
            for horizon, values in one.horizons.items():
                assert part["result"]["horizons"][horizon]["loss"] == pytest.approx(values["loss"], abs=CURVE)
        sharing = Mesh.parse(mesh or "").context  # neighbours that read the same rows
        _assert_rows(settings, dataset, [part["rows"] for part in found][::sharing])
        assert _losses(folder) == pytest.approx(_losses(tmp_path / "1"), abs=CURVE)
        assert _weights_apart(folder, tmp_path / "1") < WEIGHTS
    changes = ((4, None, 2), (4, "tensor=2", 1), (1, None, 4), (2, "tensor=2", 4), (4, "shard=2,context=2", 2))
    for first, mesh, second in changes:
        name = f"{first} {mesh} then {second}"
        stopped = together(first, name, mesh, rank=0, at=31, kind="stop")
        assert all("stopped by request" in part["error"] for part in stopped), stopped
        assert wt.load(tmp_path / name).record["result"] is None
        finished = together(second, name)
        for part in finished:
            assert part["result"]["horizons"]["1.0"]["loss"] == pytest.approx(one.loss, abs=CURVE)
        assert _losses(tmp_path / name) == pytest.approx(_losses(tmp_path / "1"), abs=CURVE)
        apart = _weights_apart(tmp_path / name, tmp_path / "1")
        assert apart < WEIGHTS
        proof(
            f"a run of {first} processes ({mesh or 'sharded'}) that {second} went on with", "one process", weights=apart
        )


def _assert_rows(settings: Any, dataset: Dataset, read: list[Any]) -> None:
    """In every step the processes read the rows of one process, each its own, in order."""
    sampler = Sampler(dataset.train, settings.context, settings.data_seed)
    order = [settings.sequences_at(step) for step in range(settings.steps)]
    whole = [range(parts[0][0], parts[-1][1]) for parts in zip(*read, strict=True)]
    assert all(
        before[1] == after[0] for parts in zip(*read, strict=True) for before, after in itertools.pairwise(parts)
    )
    trunk = whole[: settings.cooldown_start(0.5)]
    assert trunk == order[: len(trunk)]
    assert sampler.windows > 0
    assert whole[-1] == order[-1]


@pytest.mark.slow
def test_a_killed_process_is_restarted(make_spec: Any, make_settings: Any, dataset: Dataset, tmp_path: Path) -> None:
    """torchrun's agent starts all of them anew, and they go on from the last checkpoint, to the same bits."""
    common = (str(dataset.folder), make_spec().to_json(), make_settings().to_json())
    data, spec, settings = common
    whole = processes.run(2, "tests.distributed.work:run", data, str(tmp_path / "whole"), spec, settings, None)
    trouble = {"rank": 1, "at": 21, "kind": "kill", "save_seconds": 0.0}
    arguments = json.dumps([data, str(tmp_path / "killed"), spec, settings, None])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "tests.distributed.processes", "tests.distributed.work:run", arguments]
    _, words = processes.ended(agent := processes.start([*command, json.dumps(trouble)]))
    assert agent.returncode == 0, words
    assert "exitcode: -9" in words
    result = json.loads((tmp_path / "killed" / "result.json").read_text())
    assert result["horizons"]["1.0"]["loss"] == whole[0]["result"]["horizons"]["1.0"]["loss"]
    assert _weights_apart(tmp_path / "killed", tmp_path / "whole") == 0
    exported = export_run(tmp_path / "killed", tmp_path / "exported", "llama")
    assert exported.files == ("model.safetensors",)
    assert sorted(path.name for path in exported.folder.glob("*.safetensors")) == ["model.safetensors"]
    assert exported.parameters == sum(weight.numel() for weight in wt.load(tmp_path / "whole").model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rank", "asked"), [("hang", 1, 0), ("kill", 1, 0), ("kill", 0, 1)])
def test_a_process_that_is_silent_is_named(
    kind: str, rank: int, asked: int, make_spec: Any, make_settings: Any, dataset: Dataset, tmp_path: Path
) -> None:
    arguments = (
        str(dataset.folder),
        str(tmp_path / "run"),
        make_spec().to_json(),
        make_settings(batch_size=6).to_json(),
        None,
    )
    trouble = {"rank": rank, "at": 12, "kind": kind, "patience": 20.0, "save_seconds": 0.0}
    started = processes.begin(3, "tests.distributed.work:run", arguments, trouble)
    told, words = processes.ended(started[asked])
    for process in started:
        process.kill()
        process.communicate()
    assert f"no answer from process {rank} (" in told, words
    assert f"pid {started[rank].pid}" in told
    assert "go on with --resume" in told
    settings = make_settings(batch_size=6)
    assert not train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, resume=True).diverged


@pytest.mark.slow
def test_a_process_that_does_not_come_is_named(tmp_path: Path) -> None:
    started = processes.begin(2, "tests.distributed.work:meet", (str(tmp_path), 1), {})
    told, words = processes.ended(started[0])
    processes.ended(started[1])
    assert "the 2 processes did not find each other: process 1 does not answer" in told, words


@pytest.mark.slow
def test_a_disk_that_fills_under_one_process_stops_all(
    make_spec: Any, make_settings: Any, dataset: Dataset, tmp_path: Path
) -> None:
    arguments = (str(dataset.folder), str(tmp_path / "run"), make_spec().to_json(), make_settings().to_json(), None)
    trouble = {"rank": 1, "at": 12, "kind": "full disk", "save_seconds": 0.0}
    told = processes.run(2, "tests.distributed.work:run", *arguments, **trouble)
    left = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert not [name for name in left if name.startswith(".")]  # nothing half-written
    last = max(int(name.removeprefix("step-")) for name in left)
    for part in told:
        assert "process 1" in part["error"]
        assert "no space left on the disk" in part["error"]
        assert part["error"].endswith(f"--resume goes on from step-{last}")
    assert not train(make_spec(), make_settings(), dataset, tmp_path / "run", ONE_THREAD, resume=True).diverged


@pytest.mark.slow
def test_steps_go_on_while_a_checkpoint_is_written(
    make_spec: Any, make_settings: Any, dataset: Dataset, tmp_path: Path
) -> None:
    """A disk of one process is waited for by the threads that write, and by nothing else."""
    settings = make_settings(horizons=(0.5, 1.0), tokens=4096)
    arguments = (str(dataset.folder), str(tmp_path / "run"), make_spec().to_json(), settings.to_json(), None)
    for part in processes.run(2, "tests.distributed.work:run", *arguments, rank=1, at=2, kind="slow disk"):
        assert "result" in part, part


@pytest.mark.parametrize(
    ("mesh", "recipe", "changes", "words"),
    [
        (Mesh(shard=3), "llama", {}, "steps of 4 sequences cannot be divided among the 3 processes"),
        (Mesh(shard=2), "llama", {"optimiser": "muon"}, "'muon' needs whole matrices, but shard=2"),
        (Mesh(shard=2), "mixtral", {}, "take --accumulation 2 or a multiple"),
        (Mesh(shard=1, tensor=2), "llama", {"optimiser": "muon"}, "'muon' needs whole matrices, but tensor=2"),
        (Mesh(shard=1, tensor=2), "diff_transformer", {}, "tensor=2 does not cut the mixer DiffAttention"),
        (Mesh(shard=1, tensor=2), "mixtral", {}, "tensor=2 does not cut the MLP Experts"),
        (Mesh(shard=1, tensor=2), "mpt_alibi", {}, "tensor=2 does not cut ALiBi"),
        (Mesh(shard=1, tensor=4), "llama", {}, "tensor=4 does not divide heads=2 and kv_heads=2"),
        (Mesh(shard=1, tensor=2), "axial_image", {}, "tensor=2 cuts language models, not a AxialTransformer"),
        (Mesh(shard=1, context=3), "llama", {}, "context=3 does not divide rows of 16 tokens"),
        (Mesh(shard=1, context=2), "switch", {}, "context=2 would divide the tokens among which experts balance"),
        (Mesh(shard=1, context=2), "axial_image", {}, "context=2 divides the rows of language models"),
        (Mesh(shard=1, expert=2), "llama", {}, "expert=2 divides experts, and this model has none"),
        (
            Mesh(shard=1, expert=3),
            "mixtral",
            {"accumulation": 3, "batch_size": 3},
            "expert=3 does not divide experts=8",
        ),
        (Mesh(shard=1, expert=2), "mixtral", {}, "take --accumulation 2 or a multiple"),
        (Mesh(shard=4), "llama", {"batch_size": 8, "ramp": ((0.25, 0.5),)}, "steps of 2 sequences"),
    ],
)
def test_what_does_not_fit_is_refused(
    mesh: Mesh, recipe: str, changes: Any, words: str, make_spec: Any, make_settings: Any
) -> None:
    members = Team(mesh, 0, ("",) * math.prod(mesh.sizes))
    with pytest.raises(InputError, match=words):
        check_team(make_spec(recipe), make_settings(**changes), ONE_THREAD, members)


def test_a_convolution_before_attention_is_not_cut(make_spec: Any) -> None:
    with pytest.raises(InputError, match="tensor=2 does not cut the mixer Convolved; use shard and replicate"):
        cut(make_spec(convolution=4), 2)


def test_a_vocabulary_is_cut_into_parts_that_are_not_empty(make_spec: Any) -> None:
    assert [cut(make_spec(vocab=67), 2, index).vocab for index in range(2)] == [34, 33]
    with pytest.raises(InputError, match="tensor=2 leaves a process without a token of vocab=1"):
        cut(make_spec(vocab=1), 2)


def test_too_little_memory_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    held, mesh = Memory(40 << 30, 40 << 30, 80 << 30), Mesh(shard=2, context=2, tensor=2)
    monkeypatch.setattr(fitting, "_memory_of", lambda device: 19 * 2.0**30)
    words = "take 20.0 GiB on each device .*shard=2, context=2, tensor=2.* has 19.0 GiB for a process"
    with pytest.raises(InputError, match=words):
        fitting.check_memory(held, Team(mesh, 0, ("",) * 8), torch.device("cpu"))
    monkeypatch.setattr(fitting, "_memory_of", lambda device: 20 * 2.0**30)
    fitting.check_memory(held, Team(mesh, 0, ("",) * 8), torch.device("cpu"))


def test_a_process_has_its_share_of_the_memory_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitting._memory_of(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert whole is not None
    assert fitting._memory_of(torch.device("cpu")) == whole / 4


def test_compilation_is_refused(make_spec: Any, make_settings: Any) -> None:
    with pytest.raises(InputError, match="compile: not with several processes"):
        check_team(make_spec(), make_settings(), ONE_THREAD.replace(compile=True), Team(Mesh(shard=2), 0, ("", "")))


def test_replicas_may_hold_whole_matrices(make_spec: Any, make_settings: Any) -> None:
    check_team(make_spec(), make_settings(optimiser="muon"), ONE_THREAD, Team(Mesh(replicate=2, shard=1), 0, ("", "")))
