"""A fold is one process on one device, whatever the environment variables and the signals of a queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from running import Commands, outcome

from fmnist_cv import cross_validate, evaluate_run, load_ensemble
from fmnist_cv.engine.trainer import make_trainer
from fmnist_cv.errors import UserError

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "a[1-2]",
    "SLURM_NTASKS_PER_NODE": "2",
}
ENVIRONMENTS = {
    "slurm": SLURM,
    "slurm without tasks per node": {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4"},
    "torchrun": {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "none",
    },
    "lsf": {
        "LSB_JOBID": "7",
        "LSB_DJOB_RANKFILE": "/nowhere",
        "JSM_NAMESPACE_LOCAL_RANK": "1",
        "JSM_NAMESPACE_SIZE": "2",
        "JSM_NAMESPACE_RANK": "1",
    },
    "mpi": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "2"},
    "kubeflow": {
        "KUBERNETES_PORT": "tcp://1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "1",
        "WORLD_SIZE": "2",
        "RANK": "1",
    },
    "Lightning's own": {
        "PL_TRAINER_FAST_DEV_RUN": "1",
        "PL_TRAINER_OVERFIT_BATCHES": "1",
        "PL_TRAINER_NUM_NODES": "2",
        "PL_TRAINER_STRATEGY": "ddp",
        "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1",
        "NODE_RANK": "1",
    },
}


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def set_all(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(rank_zero_only, "rank", 1)  # what Lightning reads when it is imported

    return set_all


@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_trainer_is_one_process(variables: dict[str, str], set_environment: Callable[[dict[str, str]], None]) -> None:
    set_environment(variables)
    trainer = make_trainer(accelerator="cpu", devices=1, max_epochs=3, logger=False)
    assert (trainer.world_size, trainer.global_rank, trainer.local_rank, trainer.node_rank) == (1, 0, 0, 0)
    assert (trainer.num_nodes, trainer.overfit_batches, trainer.fast_dev_run, trainer.max_epochs) == (1, 0.0, False, 3)
    assert trainer.limit_train_batches == 1.0
    assert type(trainer._accelerator_connector.cluster_environment) is LightningEnvironment
    assert rank_zero_only.rank == 0  # type: ignore[attr-defined]


def test_a_run_in_a_task_of_a_slurm_job_is_a_run(
    tiny: dict[str, Any], set_environment: Callable[[dict[str, str]], None]
) -> None:
    """With TensorBoard, which a process of another rank than 0 has none of."""
    tiny["cv"] |= {"holdout": 0.3}
    tiny["trainer"]["max_epochs"] = 1
    expected = outcome(cross_validate(tiny, run="alone").path)
    set_environment({**SLURM, **ENVIRONMENTS["torchrun"]})
    run = cross_validate(tiny, run="task").path
    assert outcome(run) == expected
    assert list((run / "fold_0").glob("events.*"))
    set_environment(SLURM)
    evaluation, _ = evaluate_run(run)
    assert len(load_ensemble(run).networks) == 1
    assert evaluation["against_the_run"]["other_answers"] == 0


def test_users_plugins_are_kept_and_cluster_environments_refused() -> None:
    plugin = TorchCheckpointIO()
    for given in (plugin, [plugin]):
        assert make_trainer(accelerator="cpu", logger=False, plugins=given).strategy.checkpoint_io is plugin
    with pytest.raises(UserError, match=r"trainer\.plugins contains SLURMEnvironment, but each fold is one process"):
        make_trainer(accelerator="cpu", logger=False, plugins=[SLURMEnvironment()])


def test_a_checkpoint_that_a_queue_requested_is_not_resumed_from(
    quick: dict[str, Any], set_environment: Callable[[dict[str, str]], None]
) -> None:
    """Lightning would load hpc_ckpt_1.ckpt from the fold's folder, in a SLURM job, before all else."""
    quick["cv"] |= {"holdout": 0.3}
    quick["trainer"]["max_epochs"] = 1
    run = cross_validate(quick, run="run").path
    expected = outcome(run)
    other = torch.load(run / "fold_0" / "last.ckpt", weights_only=True)
    other["state_dict"] = {name: weights + 1 for name, weights in other["state_dict"].items()}
    torch.save(other, run / "fold_0" / "hpc_ckpt_1.ckpt")
    for name in ("metrics.json", "last.ckpt", "best.ckpt"):
        (run / "fold_0" / name).unlink()
    set_environment(SLURM)
    assert outcome(cross_validate(quick, resume="run").path) == expected


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_queues_signal_ends_the_process_and_the_run_resumes_the_same(
    commands: Commands,
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    name: str,
) -> None:
    quick["cv"] |= {"holdout": 0.3}
    quick["model"]["class_path"] = "users_modules.DenseThatMayGoWrong"
    config, run = write_config(quick), tmp_path / "logs" / "tiny" / "signalled"
    whole = cross_validate(quick, run="whole").path
    ended = commands.run(
        "--config", config, "--run", "signalled", variables={**SLURM, "GOES_WRONG": f"fold_0 1 3 {name}"}
    )
    assert ended.status == -getattr(signal, name), ended
    assert sorted(os.listdir(run / "fold_0")) == ["best.ckpt", "last.ckpt"]  # and no hpc_ckpt_1.ckpt
    assert commands.run("--config", config, "--resume", "signalled", variables=SLURM).status == 0
    assert outcome(run) == outcome(whole)
