"""What a policy may read of a site: every control of every page, found by walking through it."""

from harness.scout.cache import ScoutCache, default_cache_dir, harness_digest, sites_digest
from harness.scout.explorer import scout
from harness.scout.survey import Survey, Surveyed
from harness.scout.walk import Seen

__all__ = ["ScoutCache", "Seen", "Survey", "Surveyed", "default_cache_dir", "harness_digest", "scout", "sites_digest"]
