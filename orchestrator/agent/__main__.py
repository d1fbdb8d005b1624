"""`python -m orchestrator.agent`: token from the environment, one JSON line on stdout once it listens."""

from __future__ import annotations

import sys

from orchestrator.agent.host import host_agent
from orchestrator.agent.server import program_options, run_program

if __name__ == "__main__":
    sys.exit(run_program(program_options("python -m orchestrator.agent", __doc__).parse_args(), host_agent))
