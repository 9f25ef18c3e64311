"""Launchers: what they would do, to the letter, and the parts that run without a cluster."""

import os
import pathlib
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from capjax.errors import UserError
from capjax.launch import hosts
from capjax.launch.__main__ import main
from capjax.launch.job import Job
from capjax.signals import RESTART

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "guiding" / "scenes.py")
ARGUMENTS = ["--", "--config", CONFIG, "--workdir", "/runs/a b", "--config.steps=3"]


def dry(capsys, *words):
    assert main([*words, "--dry-run", *ARGUMENTS]) == 0
    return capsys.readouterr().out


def test_slurm_says_what_it_would_submit(capsys):
    said = dry(
        capsys, "slurm", "--nodes", "4", "--gpus-per-node", "8", "--time", "1:00:00",
        "--setup", "source .venv/bin/activate", "--sbatch=--account=me",
    )  # fmt: skip
    command = f"python -m capjax.train --config {CONFIG} --workdir '/runs/a b' --config.steps=3"
    lines = said.splitlines()
    assert lines[0] == "sbatch <<'END'"
    for option in ("--nodes=4", "--gpus-per-node=8", "--time=1:00:00", "--requeue", "--account=me"):
        assert f"#SBATCH {option}" in lines
    assert lines.index("source .venv/bin/activate") < lines.index(
        f"srun --kill-on-bad-exit=1 {command} &"
    )
    assert "--array" not in said


SRUN = """#!/bin/bash
trap 'echo told >> "$LOG"; exit {restart}' TERM
echo started >> "$LOG"
for i in $(seq 100); do sleep 0.05; done
exit {code}
"""


@pytest.mark.parametrize(
    ("state", "signalled", "code", "expected"),
    [
        ("RUNNING", True, 0, ["started", "told", "requeue 7"]),
        ("CANCELLED", True, 0, ["started", "told"]),
        ("RUNNING", False, 2, ["started"]),
    ],
)
def test_the_batch_script_requeues_what_was_told_to_stop(
    tmp_path, capsys, state, signalled, code, expected
):
    """The script itself, with stand-ins for SLURM's programs."""
    script = dry(capsys, "slurm").split("\n", 1)[1].rpartition("END")[0]
    programs = {
        "srun": SRUN.format(restart=RESTART, code=code).replace(
            "seq 100", "seq 100" if signalled else "seq 2"
        ),
        "squeue": f"#!/bin/bash\necho {state}\n",
        "scontrol": '#!/bin/bash\necho "$@" >> "$LOG"\n',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    log = tmp_path / "log"
    log.touch()
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(log),
        "SLURM_JOB_ID": "7",
    }
    process = subprocess.Popen(["bash", "-c", script], env=environment)
    while "started" not in log.read_text():
        time.sleep(0.01)
    if signalled:
        process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == (RESTART if signalled else code)
    assert log.read_text().splitlines() == expected


def test_a_sweep_is_an_array_job(tmp_path, capsys):
    path = tmp_path / "sweeping.py"
    path.write_text(
        pathlib.Path(CONFIG).read_text()
        + "\n\ndef get_hyper():\n    return [{'seed': seed} for seed in range(12)]\n"
    )
    words = ["--sweep", "--dry-run", "--", "--config", str(path), "--workdir", "w"]
    assert main(["slurm", "--at-once", "3", *words]) == 0
    said = capsys.readouterr().out
    assert "#SBATCH --array=0-11%3" in said
    assert (
        f"python -m capjax.sweep --config {path} --workdir w "
        '--index="$SLURM_ARRAY_TASK_ID" &' in said
    )
    assert main(["gke", "--cluster", "c", "--tpu-type", "v5p-8", "--image", "i", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert "--workload=capjax-sweeping-11 " in lines[11]
    assert "--index=11" in lines[11]
    with pytest.raises(UserError, match="one run at a time"):
        main(["hosts", "--hosts", "a", *words])


def test_gke_says_what_it_would_call(capsys):
    said = dry(
        capsys, "gke", "--cluster", "c", "--tpu-type", "v5p-256", "--slices", "2", "--image", "i",
        "--zone", "z", "--name", "x" * 60,
    )  # fmt: skip
    for word in (
        "xpk workload create --cluster=c", f"--workload={'x' * 40} ", "--num-slices=2", "--zone=z",
        f"--restart-on-exit-codes={RESTART}", "--termination-grace-period-seconds=180",
    ):  # fmt: skip
        assert word in said
    with pytest.raises(UserError, match="one of --tpu-type"):
        main(["gke", "--cluster", "c", "--image", "i", "--dry-run", *ARGUMENTS])


def test_hosts_says_what_it_would_call(capsys):
    lines = dry(
        capsys, "hosts", "--hosts", "me@a,b", "--directory", "/repo", "--name", "n"
    ).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("ssh -o BatchMode=yes me@a 'cd /repo && echo $$ > /tmp/n-8476-0.pid")
    assert "--coordinator=a:8476 --process-count=2 --process-id=1" in lines[1]


@pytest.fixture
def local_ssh(tmp_path, monkeypatch):
    """An ssh whose every host is this one."""
    path = tmp_path / "bin" / "ssh"
    path.parent.mkdir()
    path.write_text('#!/bin/bash\nexec bash -c "${@: -1}"\n')
    path.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(hosts, "GRACE", 10.0)


PROCESS = """
    import pathlib, signal, sys, time
    index = int(sys.argv[1][-1])
    def stop(*_):
        print("saving", flush=True)
        sys.exit({restart})
    signal.signal(signal.SIGTERM, stop)
    print("up", flush=True)
    here = pathlib.Path(__file__).parent
    (here / f"{{index}}.up").touch()
    if {fails} and index == 1:
        while not (here / "0.up").exists():  # the other one is to have its handler
            time.sleep(0.02)
        (here / "0.up").unlink()  # nor is it to be seen again when both begin again
        sys.exit({fails})
    time.sleep({seconds})
"""


def run_hosts(tmp_path, fails=0, seconds=20, restarts=0):
    script = tmp_path / "process.py"
    script.write_text(
        textwrap.dedent(PROCESS).format(restart=RESTART, fails=fails, seconds=seconds)
    )
    planned = hosts.plan(Job((), name=f"test-{os.getpid()}"), ["a", "b"], str(tmp_path), 1)
    there = []
    for up in tmp_path.glob("*.up"):
        up.unlink()
    for index, host in enumerate(planned):
        pid_file = tmp_path / f"{index}.pid"
        command = f"echo $$ > {pid_file} && exec {sys.executable} {script} --process-id={index}"
        there.append(hosts.Host(host.name, command, str(pid_file)))
    return hosts.start(there, restarts)


def test_hosts_run_to_the_end_or_are_stopped_together(tmp_path, local_ssh, capfd):
    assert run_hosts(tmp_path, seconds=0) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["[a] up", "[b] up"]
    # One that is lost takes the others along, each with time to save; then all begin again.
    assert run_hosts(tmp_path, fails=1, restarts=1) == 1
    said = capfd.readouterr()
    assert said.out.splitlines().count("[a] saving") == 2
    assert "starting again (1 of 1)" in said.err
    assert run_hosts(tmp_path, fails=2, restarts=5) == 2  # a user's mistake is not tried again


def test_sigterm_reaches_all_hosts(tmp_path, local_ssh, capfd):
    def tell():
        while not all((tmp_path / f"{i}.up").exists() for i in (0, 1)):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=tell)
    thread.start()
    assert run_hosts(tmp_path, restarts=3) == RESTART
    thread.join()
    assert capfd.readouterr().out.count("saving") == 2


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="the command lacks --workdir"):
        main(["slurm", "--dry-run", "--", "--config", CONFIG])
    with pytest.raises(UserError, match="names no host"):
        main(["hosts", "--dry-run", *ARGUMENTS])
    with pytest.raises(UserError, match="a host twice"):
        main(["hosts", "--hosts", "a,a", "--dry-run", *ARGUMENTS])
    with pytest.raises(UserError, match="cannot read"):
        main(["hosts", "--hosts-file", str(tmp_path / "none"), "--dry-run", *ARGUMENTS])
