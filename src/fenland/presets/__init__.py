"""From paper names to the five choices. Where two methods share a name, the table of variants says which one is meant:
SSAM is Stable SAM (Sparse: `SparseSAM`), MSAM Momentum-SAM, F-SAM `FriendlySAM` (or `FisherSAM`), RSAM `RiemannianSAM`.
"""

from fenland.presets.balls import (
    ASAM,
    DNSAM,
    LESAM,
    SAM,
    SAMON,
    SSAM,
    USAM,
    ClippedUSAM,
    FisherSAM,
    InfNormSAM,
    LpSAM,
    RiemannianSAM,
    SparseSAM,
    SpectralSAM,
    ZSharp,
)
from fenland.presets.combines import GNP, GSAM, WSAM, XSAM, ControlSAM, LookSAM
from fenland.presets.schedules import AESAM, RST, IntervalSAM, WindowSAM
from fenland.presets.sources import ESAM, GCSAM, KSAM, MSAM, FriendlySAM, LaggedSAM, NStepSAM, RandomSAM, VaSSO
from fenland.presets.table import PRESETS, Preset

__all__: list[str] = [
    "AESAM",
    "ASAM",
    "DNSAM",
    "ESAM",
    "GCSAM",
    "GNP",
    "GSAM",
    "KSAM",
    "LESAM",
    "MSAM",
    "PRESETS",
    "RST",
    "SAM",
    "SAMON",
    "SSAM",
    "USAM",
    "WSAM",
    "XSAM",
    "ClippedUSAM",
    "ControlSAM",
    "FisherSAM",
    "FriendlySAM",
    "InfNormSAM",
    "IntervalSAM",
    "LaggedSAM",
    "LookSAM",
    "LpSAM",
    "NStepSAM",
    "Preset",
    "RandomSAM",
    "RiemannianSAM",
    "SparseSAM",
    "SpectralSAM",
    "VaSSO",
    "WindowSAM",
    "ZSharp",
]
