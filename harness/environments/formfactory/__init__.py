"""FormFactory (arXiv 2506.01520): the forms of a user's own checkout as tasks, judged by what was sent.

Nothing of the benchmark is part of this package. `checkout.py` finds its records and makes tasks of them.
`canonical.py` turns gold values into what a control can hold. `application.py` runs the application in a process of its
own (`launch.py`) and records every exchange with it. `environment.py` observes and runs.
"""

from harness.environments.formfactory.checkout import Catalogue, Checkout, FormRecords, Unsolvable
from harness.environments.formfactory.environment import FormFactoryEnvironment, FormFactorySettings

__all__ = ["Catalogue", "Checkout", "FormFactoryEnvironment", "FormFactorySettings", "FormRecords", "Unsolvable"]
