"""Built-in form sites: what they are made of, the tasks on them, what must be observed there, and their server."""

from harness.sites.answers import all_errors, is_visible, page_errors, site_defaults
from harness.sites.factory import make_site
from harness.sites.generate import make_tasks, site_keys
from harness.sites.newer import older_key
from harness.sites.oracle import expected_page, gold_plan, scout_answers, unfinished_plan
from harness.sites.schema import OBSTACLES, FieldSpec, FormSpec, PageSpec, Site, SiteField, SitePage
from harness.sites.server import SiteServer, Submission

__all__ = [
    "OBSTACLES",
    "FieldSpec",
    "FormSpec",
    "PageSpec",
    "Site",
    "SiteField",
    "SitePage",
    "SiteServer",
    "Submission",
    "all_errors",
    "expected_page",
    "gold_plan",
    "is_visible",
    "make_site",
    "make_tasks",
    "older_key",
    "page_errors",
    "scout_answers",
    "site_defaults",
    "site_keys",
    "unfinished_plan",
]
