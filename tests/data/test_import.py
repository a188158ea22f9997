import subprocess
import sys


def test_plain_pytorch_needs_no_other_framework() -> None:
    script = (
        "import sys, targetprop, targetprop.data; "
        "print([name for name in ('lightning', 'hydra', 'sklearn') if name in sys.modules])"
    )
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert imported.stdout.strip() == "[]"
