"""The environments that presets name: forms, episodes, text toys, a site of one's own, MiniWoB++, FormFactory,
Gymnasium, OpenEnv."""

from harness.environments.base import BrowserEnvironment, BrowserSettings, FormSettings, world_settings
from harness.environments.episodes import EpisodeEnvironment, EpisodeSettings
from harness.environments.formfactory import Catalogue, FormFactoryEnvironment, FormFactorySettings
from harness.environments.forms import FormEnvironment, tasks_for
from harness.environments.gymnasium import GymnasiumEnvironment, GymnasiumSettings
from harness.environments.miniwob import MiniWobEnvironment, MiniWobSettings
from harness.environments.openenv import OpenEnvEnvironment, OpenEnvSettings
from harness.environments.site import SiteEnvironment, SiteSettings
from harness.environments.text import TextEnvironment

__all__ = [
    "BrowserEnvironment",
    "BrowserSettings",
    "Catalogue",
    "EpisodeEnvironment",
    "EpisodeSettings",
    "FormEnvironment",
    "FormFactoryEnvironment",
    "FormFactorySettings",
    "FormSettings",
    "GymnasiumEnvironment",
    "GymnasiumSettings",
    "MiniWobEnvironment",
    "MiniWobSettings",
    "OpenEnvEnvironment",
    "OpenEnvSettings",
    "SiteEnvironment",
    "SiteSettings",
    "TextEnvironment",
    "tasks_for",
    "world_settings",
]
