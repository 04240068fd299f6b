"""OpenEnv in both directions: our environments as an OpenEnv server, and OpenEnv servers as environments of ours.

The protocol is that of the package `openenv`: messages in JSON over one WebSocket a session. It is spoken here without
the package, whose web interface weighs a quarter of a gigabyte. Its clients and servers are the other side.
"""

from harness.environments.openenv.client import Connection, OpenEnvError
from harness.environments.openenv.environment import OpenEnvEnvironment, OpenEnvSettings
from harness.environments.openenv.server import OpenEnvServer

__all__ = ["Connection", "OpenEnvEnvironment", "OpenEnvError", "OpenEnvServer", "OpenEnvSettings"]
