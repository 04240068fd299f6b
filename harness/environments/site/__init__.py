"""A site of one's own, in HTML, Python or any other server, as an environment.

`sources.py` starts it and says where it is. `tasks.py` reads the user's tasks. `environment.py` looks at its forms and
runs plans on them; `oracle.py` writes the plans that should succeed.
"""

from harness.environments.site.environment import SiteEnvironment, SiteSettings

__all__ = ["SiteEnvironment", "SiteSettings"]
