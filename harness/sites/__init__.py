"""Built-in form sites: what they are made of, the tasks on them, what must be observed there, and their server."""

from harness.sites.answers import all_errors, is_visible, page_errors, site_defaults
from harness.sites.factory import make_site
from harness.sites.generate import TaskSpec, make_tasks, site_keys, split_digest, tasks_of
from harness.sites.oracle import empty_plan, expected_page, gold_plan, scout_answers
from harness.sites.schema import FieldSpec, FormSpec, PageSpec, Site, SiteField, SitePage
from harness.sites.server import SiteServer, Submission

__all__ = [
    "FieldSpec",
    "FormSpec",
    "PageSpec",
    "Site",
    "SiteField",
    "SitePage",
    "SiteServer",
    "Submission",
    "TaskSpec",
    "all_errors",
    "empty_plan",
    "expected_page",
    "gold_plan",
    "is_visible",
    "make_site",
    "make_tasks",
    "page_errors",
    "scout_answers",
    "site_defaults",
    "site_keys",
    "split_digest",
    "tasks_of",
]
