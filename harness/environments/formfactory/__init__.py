"""FormFactory (arXiv 2506.01520): the forms of a user's own checkout as tasks, judged by what was sent.

Nothing of the benchmark is part of this package. `checkout.py` finds its records, `canonical.py` turns gold values into
what a control can hold, `launch.py` runs its application in a process of its own, `proxy.py` keeps every exchange with
it, `environment.py` observes and runs.
"""

from harness.environments.formfactory.checkout import Checkout, FormRecords
from harness.environments.formfactory.environment import FormFactoryEnvironment, FormFactorySettings
from harness.environments.formfactory.tasks import Catalogue, Unsolvable

__all__ = ["Catalogue", "Checkout", "FormFactoryEnvironment", "FormFactorySettings", "FormRecords", "Unsolvable"]
