"""What the examples and the README show is run, so that it cannot rot."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_the_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_readme_taps_a_model() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    # A broker that is away: the model must answer all the same.
    program = f"""
import torch
from torch import nn
model = nn.Sequential()
for name in ("layer1", "layer2"):
    model.add_module(name, nn.Linear(4, 4))
model.add_module("avgpool", nn.ReLU())
model.eval()
{code.replace("localhost:9092", "127.0.0.1:9")}
with tap.request(sample_ids=["a", "b"]), torch.no_grad():
    print(model(torch.zeros(2, 4)).shape)
print(tap.stats.published, tap.stats.errors)
publisher.close(timeout_s=0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "torch.Size([2, 4])\n1 {}" in done.stdout, done.stdout + done.stderr
