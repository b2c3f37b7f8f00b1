"""What a command imports before it trains: nothing that nobody asked for."""

import subprocess
import sys

import pytest


@pytest.mark.thorough
def test_training_imports_no_logger_plotter_or_umap():
    code = (
        "import sys, solo.run.pretrain, solo.run.measure\n"
        "print([name for name in ('wandb', 'umap', 'plotly', 'mlflow', 'sklearn', 'tensorboard', 'datasets', "
        "'solo.analysis.drawing') if name in sys.modules])\n"
        "import wandb; print(hasattr(wandb, 'init'))"  # whoever wants it has it
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-2:] == ["[]", "True"]
