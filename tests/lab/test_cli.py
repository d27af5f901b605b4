"""The command line as a stranger meets it: in a process of its own where that matters, else through ``main``."""

import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image_files import write_split

from fenland import __version__
from fenland.lab import cli, logs
from fenland.lab.commands import COMMANDS
from fenland.lab.models import MODELS
from fenland.lab.store.runs import Store
from fenland.lab.training.optimizers import OPTIMIZERS

COMMAND = [sys.executable, "-m", "fenland.lab.cli"]
QUICK = ["compare", "--data", "digits", "--model", "mlp", "--epochs", "2", "--limit", "320"]


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that is refused."""
    assert cli.main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("fenland: ")
    return captured.err[len("fenland: ") : -1]


ALLOWED = "choose one of " + ", ".join(OPTIMIZERS)
WRONG = {
    ("--optimizers", "sgd", "adam"): f"--optimizers=adam: {ALLOWED}; perhaps you meant adamw or asam",
    ("--optimizers",): "--optimizers=(none): name at least one, such as: sgd sam ssam",
    (
        "--model",
        "vgg",
    ): f"--model=vgg: choose one of {', '.join(MODELS)}, any wrnD-K, or for texts a hub name or a folder; "
    "perhaps you meant vgg16 or vgg11",
    ("--data", "mnst"): "--data=mnst: choose one of digits, mnist, cifar10, cifar100, a hub name owner/name, "
    "or a folder; perhaps you meant mnist",
    ("--data", "local"): "--data=local: give the folder itself, as in --data DIR",
    ("--data", "local", "--data-dir", "/tmp"): "--data=local: give the folder itself, as in --data DIR",
    ("--data", "mnist", "--data-dir", "/no/such"): "--data-dir=/no/such: no such directory; give the directory that "
    "holds train.parquet and test.parquet, or train/CLASS/ with images",
    ("--data", "/no/such"): "--data=/no/such: no such directory; give the directory that "
    "holds train.parquet and test.parquet, or train/CLASS/ with images",
    ("--test-split", "validation"): "--test-split=validation: digits have one test split; leave it out",
    ("--rho", "-0.1"): "--rho=-0.1: give a number >= 0, or optimizer=number",
    ("--rho", "sam=nan"): "--rho=sam=nan: give a number >= 0, or optimizer=number",
    ("--rho", "usam=1"): "--rho=usam=1: usam is not among the optimizers (sgd, sam, ssam)",
    ("--rho", "0.1", "0.2"): "--rho=0.1 0.2: gives two radii for all optimizers; keep one; "
    "fenland sweep compare --set rho=0.05,0.1 compares several",
    ("--rho", "sam=1", "2", "sam=3"): "--rho=sam=1 2 sam=3: gives two radii for sam; keep one; "
    "fenland sweep compare --set rho=0.05,0.1 compares several",
    ("--optimizers", "sgd", "--rho", "0.1"): "--rho=0.1: none of these optimizers has a radius (sgd); leave it out",
    ("--limit", "2000"): "--limit=2000: give at most 1437, the size of the train set, or all",
    ("--cutout", "20"): "--cutout=20: give 0 to 8 pixels, the smaller side of the images",
    ("--cutout-share", "0.5"): "--cutout-share=0.5: is the share of images that cutout blanks a square in; "
    "give cutout too, or leave it out",
    ("--limit", "all", "--data-seed", "3"): "--data-seed=3: fixes what limit, label_noise, validate and replace "
    "choose; give one of them, or leave it out",
    ("--strategy", "ddp"): "--strategy=ddp: is for several devices; give devices too, or leave it out",
    ("--model", "a/b", "--augment", "on"): "--augment=on: is for images, and this model reads texts; leave it out",
    ("--rho", "sgd=1"): "--rho=sgd=1: sgd has no radius; leave it out",
    ("--lr", "0"): "--lr=0: give a number > 0, or auto",
    ("--lr", "fast"): "--lr=fast: give a number > 0, or auto",
    ("--momentum", "1"): "--momentum=1: give a number in [0, 1)",
    ("--weight-decay", "-1"): "--weight-decay=-1: give a number >= 0",
    ("--batch-size", "0"): "--batch-size=0: give a whole number >= 1, or auto",
    ("--batch-size", "5000"): "--batch-size=5000: give at most 320, the size of the train set",
    ("--epochs", "0"): "--epochs=0: give a whole number >= 1, or auto",
    ("--epochs", "2.5"): "--epochs=2.5: give a whole number >= 1, or auto",
    ("--seeds", "0"): "--seeds=0: give a whole number >= 1",
    ("--workers", "many"): "--workers=many: give a whole number >= 1",
    ("--threads", "0"): "--threads=0: give a whole number >= 1",
    ("--limit", "some"): "--limit=some: give a whole number >= 1, or none",
    ("--schedule", "linear"): "--schedule=linear: choose one of constant, cosine, step, one-cycle",
    ("--augment", "perhaps"): "--augment=perhaps: give on or off, or auto",
    ("--weights", "perhaps"): "--weights=perhaps: give on or off",
    ("--seeds", "3,3"): "--seeds=3,3: give how many, or different whole numbers >= 0 as in 0..4 or 3,5",
    ("--precision", "16"): "--precision=16: choose one of 32-true, bf16-mixed, 64-true, 16-mixed",
    ("--device", "tpu"): "--device=tpu: choose one of auto, cuda, mps, cpu",
    ("--frobnicate",): "Unrecognized options: --frobnicate",
}


@pytest.mark.parametrize("wrong", WRONG, ids=" ".join)
def test_bad_input_is_one_line_and_writes_nothing(
    wrong: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    assert fails(capsys, *QUICK, "--out", str(out), *wrong) == WRONG[wrong]
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for out, place in ((tmp_path / "file", tmp_path / "file"), (tmp_path / "file" / "sub", tmp_path / "file")):
        assert fails(capsys, *QUICK, "--out", str(out)) == f"--out={out}: {place} is a file; choose another directory"
    assert (tmp_path / "file").read_text() == "mine"
    # Nobody can create a folder in /proc, not even root.
    said = fails(capsys, *QUICK, "--out", "/proc/fenland")
    assert said.startswith("--out=/proc/fenland: ")
    assert said.endswith("; choose another directory")


def test_a_directory_without_permission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert fails(capsys, *QUICK, "--out", str(tmp_path / "x")).endswith(
        f"{tmp_path} is not writable; choose another directory"
    )


def test_corrupt_parquet(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = ["compare", "--data", str(tiny), "--out", str(tmp_path / "out")]
    file = tiny / "test.parquet"
    file.write_bytes(file.read_bytes()[:300])
    assert fails(capsys, *local).startswith(f"--data={file}: corrupt or truncated parquet (")
    write_split(file, 5, (9, 9))
    assert "row 0, column image: is 9x9, the images before are 8x8" in fails(capsys, *local)
    assert not (tmp_path / "out").exists()


def test_runs_and_report_want_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cure = "give the --out of an earlier comparison, sweep or study"
    (tmp_path / "file").touch()
    for command in ("runs", "report"):
        assert fails(capsys, command, str(tmp_path / "file")) == (
            f"DIR={tmp_path / 'file'}: is a file, not a directory; {cure}"
        )
        assert fails(capsys, command, "/no/such") == f"DIR=/no/such: no such directory; {cure}"
        assert fails(capsys, command, str(tmp_path)) == f"DIR={tmp_path}: no stored run in it; {cure}"
        assert fails(capsys, command).startswith(f"Missing from fenland {command}: DIR")


def test_options_before_the_command_and_misspelt_ones(capsys: pytest.CaptureFixture[str]) -> None:
    said = "options come after the command, as in: fenland"
    assert fails(capsys, "--out", "x", "compare") == f"--out: {said} compare --out; see fenland --help"
    assert fails(capsys, "--data", "mnist") == f"--data: {said} COMMAND --data; see fenland --help"
    assert fails(capsys, "--versio").endswith("; perhaps you meant --version")
    for wrong in (["compare", "--outt", "x"], ["runs", "x", "--wher", "a"], ["study", "--quik"]):
        line = fails(capsys, *wrong)
        assert line.startswith("Unrecognized options: ")
        assert len(line) < 140
    assert "perhaps you meant --out" in fails(capsys, "compare", "--outt", "x")


def test_unknown_commands_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    listed = ", ".join(COMMANDS)
    assert fails(capsys, "compre") == f"COMMAND=compre: choose one of {listed}; perhaps you meant compare"
    assert fails(capsys, "xyz") == f"COMMAND=xyz: choose one of {listed}"
    for arguments in ([], ["--help"]):
        assert cli.main(arguments) == 0
        said = capsys.readouterr().out
        assert "Exit codes: 0 done; 1 something failed" in said
        assert all(f"• {name} " in said for name in COMMANDS)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fenland {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: fenland {name} " in said
    assert re.search(rf"Example: .*fenland {name}\b", said)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_a_command_and_an_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "fenland.bash"
    script.write_text(capsys.readouterr().out)

    def offered(*words: str) -> list[str]:
        line = f"source {script}; COMP_WORDS=(fenland {shlex.join(words)}); COMP_CWORD={len(words)}; "
        line += "$(complete -p fenland | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${COMPREPLY[@]}"
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.split()

    assert offered("comp") == ["compare", "completion"]
    assert offered("compare", "--batch") == ["--batch-size"]


def test_completion_knows_its_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "completion", "tcsh") == "SHELL=tcsh: choose one of bash, zsh, fish"


def test_logs_are_as_loud_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    cases = {"": "W", "-v": "WI", "--verbose": "WI", "-v -v": "WID", "-vv": "WID"}
    for words, heard in cases.items():
        with logs.shown(sum(cli._VERBOSE[word] for word in words.split())):
            log = logging.getLogger("fenland.lab.test")
            log.warning("W")
            log.info("I")
            log.debug("D")
        lines = capsys.readouterr().err.splitlines()
        assert [line[-1] for line in lines] == list(heard)
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ fenland.lab.test: ", line) for line in lines)
    assert not logging.getLogger("fenland").handlers


def test_a_closed_pipe_is_no_traceback() -> None:
    command = subprocess.Popen([*COMMAND, "variants", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()
    assert (command.stderr.read(), command.wait()) == (b"", 1)
    command.stderr.close()


def test_a_missing_package_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    for name in [name for name in sys.modules if name.startswith("fenland.lab.commands")]:
        monkeypatch.delitem(sys.modules, name)
    assert (
        fails(capsys, "compare")
        == "tyro is not installed; run: pip install 'fenland[lab]', or pip install '.[lab]' in a clone"
    )


def test_a_comparison_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = [*QUICK, "--optimizers", "sgd", "ssam", "--seeds", "2", "--rho", "ssam=0.1", "--out", str(out)]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[-1] == str(out / "report.html")
    assert (out / "report.html").stat().st_size > 10_000
    assert any(line.startswith("[4/4] ssam seed 1: test ") for line in lines)
    for word in ("test acc. %", "test loss", "SGD", "SSAM", "±", " 1.00x"):
        assert word in captured.out
    assert [(run.config.optimizer, run.config.rho) for run in Store(out).runs()] == [("sgd", None)] * 2 + [
        ("ssam", 0.1)
    ] * 2
    asked = json.loads((out / "compare.json").read_text())
    assert asked["command"].startswith("fenland compare --data digits")
    assert asked["runs"] == [run.config.hash for seed in (0, 1) for run in Store(out).runs() if run.config.seed == seed]

    assert cli.main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert "4 of 4 runs are stored" in captured.err
    assert (content["ran"], content["stored_before"], content["failed"]) == (0, 4, [])
    assert [row["optimizer"] for row in content["optimizers"]] == ["sgd", "ssam"]
    assert 0 < content["optimizers"][0]["test_accuracy"] < 1

    (out / "report.html").unlink()
    assert cli.main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    assert (out / "report.html").is_file()
    assert cli.main(["runs", str(out)]) == 0
    table = capsys.readouterr().out
    assert "status finished" in table.splitlines()[0], "what all runs have in common is said once"
    assert all(table.count(run.config.hash) == 1 for run in Store(out).runs())
    assert cli.main(["runs", str(out), "--json"]) == 0
    assert {row["config"]["optimizer"] for row in json.loads(capsys.readouterr().out)} == {"sgd", "ssam"}


def test_one_seed_and_a_run_that_diverges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert cli.main([*QUICK, "--optimizers", "sgd", "sam", "--seeds", "1", "--lr", "1e30", "--out", out]) == 0
    assert "diverged" in capsys.readouterr().out


def test_failed_runs_give_exit_code_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **more: object) -> None:
        raise MemoryError("too big")

    monkeypatch.setattr("fenland.lab.training.trainer.train", train)
    assert cli.main([*QUICK, "--optimizers", "sgd", "--seeds", "2", "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("fenland: 2 of 2 runs failed, the first (")
    first, second = captured.err.splitlines()
    assert first.endswith("with: MemoryError: too big; the same command tries them again")
    assert second == f"fenland: their tracebacks are in {tmp_path / 'out' / 'log.txt'}"
    assert "MemoryError: too big" in (tmp_path / "out" / "log.txt").read_text()
    assert captured.out.count("FAILED, MemoryError: too big") == 2


@pytest.mark.slow
def test_real_mnist_in_a_process_of_its_own(real, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "compare", "--data", "mnist", "--data-dir", real("mnist"), "--model", "lenet"]
    command += [
        "--optimizers",
        "sgd",
        "sam",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--limit",
        "2000",
        "--batch-size",
        "32",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(out / "report.html")
    assert all(run.result["test_accuracy"] > 0.5 for run in Store(out).runs())


def test_import_fenland_does_not_load_the_lab() -> None:
    check = "import sys, fenland; sys.exit(any(name in sys.modules for name in ('fenland.lab', 'lightning', 'rich')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_help_needs_no_heavy_import() -> None:
    check = (
        "import sys; from fenland.lab import cli; cli.main(['compare', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('lightning', 'pandas', 'datasets', 'matplotlib', 'sklearn')))"
    )
    start = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", check], stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert time.perf_counter() - start < 30


def test_an_optimizer_that_cannot_train_the_model_is_refused_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["compare", "--model", "mlp", "--optimizers", "sgd", "samon", "--out", str(out)]
    assert cli.main(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("fenland: --optimizers=samon: does not fit the model mlp: ")
    assert line.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_without_a_value_shows_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not re.search(r"\(default: *('' *|None)?\)", said)
    assert "(default: 1)" in said or "--workers" not in said
