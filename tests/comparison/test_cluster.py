"""A study on a cluster: what is refused, and the same results as on one machine, whichever node is lost."""

import socket

import pytest
from typer.testing import CliRunner

from windtunnel.cli.app import app
from windtunnel.comparison import cluster_worker
from windtunnel.comparison.cluster import check_cluster
from windtunnel.comparison.cluster_worker import Tally, View, attempt
from windtunnel.errors import InputError


@pytest.fixture
def ray_is_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


@pytest.fixture
def places(tmp_path):
    study, tokens = tmp_path / "study", tmp_path / "tokens"
    (tokens / "train").mkdir(parents=True)
    study.mkdir()
    (tokens / "train" / "0.bin").write_bytes(b"1234")
    mark = study / ".cluster-1"
    mark.touch()
    return mark, tokens


def test_without_ray_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["compare", "llama", "palm", "--preset", "smoke", "--cluster", "auto", "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "pip install 'windtunnel[cluster]'" in result.output
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("address", "device", "message"),
    [
        ("ray://head:10001", "auto", "HOST:PORT"),
        ("head", "auto", "HOST:PORT"),
        ("head:port", "cpu", "HOST:PORT"),
        (":6379", "cpu", "HOST:PORT"),
        ("auto", "cuda:1", "Ray chooses"),
    ],
)
@pytest.mark.usefixtures("ray_is_there")
def test_what_no_cluster_can_be_is_refused(address, device, message):
    with pytest.raises(InputError, match=message):
        check_cluster(address, device)


@pytest.mark.usefixtures("ray_is_there")
def test_an_address_where_nothing_answers_is_refused_at_once():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))  # bound, and not listening
        with pytest.raises(InputError, match=r"nothing answers at 127\.0\.0\.1"):
            check_cluster(f"127.0.0.1:{one.getsockname()[1]}")


def test_a_machine_that_sees_what_the_study_sees_is_fit(places):
    assert View.of(*places).difference() == ""


def test_a_machine_with_another_disk_other_tokens_or_versions_is_not(places, monkeypatch):
    mark, tokens = places
    view = View.of(mark, tokens)
    (tokens / "train" / "0.bin").write_bytes(b"12345")
    assert str(tokens) in view.difference()
    view = View.of(mark, tokens)
    with monkeypatch.context() as patch:
        patch.setattr(cluster_worker.platform, "python_version", lambda: "2.7")
        assert "has python 2.7, and the study 3" in view.difference()
    mark.unlink()
    assert f"does not see the study's folder {mark.parent}" in view.difference()


class Handle:
    """What a worker holds of the tally: calls that return at once."""

    def __init__(self):
        self.tally = Tally()
        self.note = self

    def remote(self, *arguments):
        self.tally.note(*arguments)


def double(payload, report):
    report(payload["value"])
    return {"value": 2 * payload["value"]}


def test_a_job_reports_its_tokens_and_where_it_is_at_work(places):
    handle = Handle()
    answer = attempt("one", f"{__name__}:double", {"value": 4}, View.of(*places), handle)
    tokens, where = handle.tally.read()
    assert answer == {"result": {"value": 8}}
    assert tokens == {"one": 4}
    assert where["one"].startswith(socket.gethostname())


def test_a_node_that_joins_without_the_folder_does_no_work(places):
    view, handle = View.of(*places), Handle()
    view.mark.unlink()
    assert "does not see" in attempt("one", f"{__name__}:double", {"value": 4}, view, handle)["unfit"]
    assert handle.tally.read() == ({}, {})
