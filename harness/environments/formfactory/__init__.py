"""FormFactory (arXiv 2506.01520): the forms of a user's own checkout as tasks, judged by what was sent.

Nothing of the benchmark is part of this package. `checkout.py` finds its records and makes tasks of them.
`environment.py` runs the application of the checkout, and plans on its forms.
"""

from harness.environments.formfactory.checkout import Catalogue, Checkout, FormRecords
from harness.environments.formfactory.environment import FormFactoryEnvironment, FormFactorySettings

__all__ = ["Catalogue", "Checkout", "FormFactoryEnvironment", "FormFactorySettings", "FormRecords"]
