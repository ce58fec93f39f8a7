"""`python -m training COMMAND`: `scratch COMMAND` for launchers, as in `accelerate launch -m training pretrain`."""

import sys

from training.cli import main

sys.exit(main())
