"""Samplers: how a policy writes a plan, and with which probability every token was drawn.

Everything that users and authors of samplers need is here: the rules and drivers, the contract `UnmaskingRule` with
what its methods see, the parts of a driver, and configurations as plain data. `samplers.hf.diffusion_generate` brings
them to `generate` of transformers. See docs/samplers.md and docs/adding_a_sampler.md.
"""

from samplers.config import (
    check_count,
    check_temperature,
    sampler_from_dict,
    sampler_from_json,
    sampler_to_dict,
    sampler_to_json,
)
from samplers.engines.base import Engine, Request, Written
from samplers.engines.continuous_batching import ContinuousBatching
from samplers.engines.vllm_engine import VllmEngine
from samplers.families.autoregressive import AutoregressiveSampler
from samplers.families.flow import FlowCumulativeSampler, FlowEulerSampler, FlowExactSampler
from samplers.families.slots import SlotSampler
from samplers.grammar.compile import constraint_of
from samplers.grammar.projection import Draw, Keys, Prediction, StepDistribution, project
from samplers.loop.context import BlockStep, RemaskContext, StepContext, Watcher
from samplers.loop.readers import CACHES, CacheName
from samplers.loop.record import ForcedTokens, Recorder
from samplers.loop.sampling import (
    CHOICE,
    COIN,
    JUMP,
    ORDER,
    REMASK,
    SOURCE,
    TOKEN,
    WITHIN,
    entropy,
    in_chunks,
    log_odds,
    pick,
    uniform,
    uniform_at,
)
from samplers.rules.ancestral import AncestralSampler
from samplers.rules.annealed import AnnealedSampler
from samplers.rules.base import UnmaskingRule
from samplers.rules.dilated import DilatedSampler
from samplers.rules.entropy import EntropySampler
from samplers.rules.entropy_bound import EntropyBoundSampler
from samplers.rules.epsilon_greedy import EpsilonGreedySampler
from samplers.rules.factor import FactorSampler
from samplers.rules.first_hitting import FirstHittingSampler
from samplers.rules.klass import KlassSampler
from samplers.rules.low_confidence import LowConfidenceSampler
from samplers.rules.margin import MarginSampler
from samplers.rules.random import RandomSampler
from samplers.rules.rcr import RunningConfidenceSampler
from samplers.rules.remdm import ReMDMSampler
from samplers.rules.revise import ReviseSampler
from samplers.rules.rpd import RPDSampler
from samplers.rules.smc import SMCSampler
from samplers.rules.soft_threshold import SoftThresholdSampler
from samplers.rules.threshold import ThresholdSampler

__all__ = [
    "CACHES",
    "CHOICE",
    "COIN",
    "JUMP",
    "ORDER",
    "REMASK",
    "SOURCE",
    "TOKEN",
    "WITHIN",
    "AncestralSampler",
    "AnnealedSampler",
    "AutoregressiveSampler",
    "BlockStep",
    "CacheName",
    "ContinuousBatching",
    "DilatedSampler",
    "Draw",
    "Engine",
    "EntropyBoundSampler",
    "EntropySampler",
    "EpsilonGreedySampler",
    "FactorSampler",
    "FirstHittingSampler",
    "FlowCumulativeSampler",
    "FlowEulerSampler",
    "FlowExactSampler",
    "ForcedTokens",
    "Keys",
    "KlassSampler",
    "LowConfidenceSampler",
    "MarginSampler",
    "Prediction",
    "RPDSampler",
    "RandomSampler",
    "ReMDMSampler",
    "Recorder",
    "RemaskContext",
    "Request",
    "ReviseSampler",
    "RunningConfidenceSampler",
    "SMCSampler",
    "SlotSampler",
    "SoftThresholdSampler",
    "StepContext",
    "StepDistribution",
    "ThresholdSampler",
    "UnmaskingRule",
    "VllmEngine",
    "Watcher",
    "Written",
    "check_count",
    "check_temperature",
    "constraint_of",
    "entropy",
    "in_chunks",
    "log_odds",
    "pick",
    "project",
    "sampler_from_dict",
    "sampler_from_json",
    "sampler_to_dict",
    "sampler_to_json",
    "uniform",
    "uniform_at",
]
