"""How long hypothesis searches: `--hypothesis-profile long` looks for new damage every time."""

from hypothesis import HealthCheck, settings

_common = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", max_examples=20, derandomize=True, **_common)
settings.register_profile("long", max_examples=2000, **_common)
settings.load_profile("quick")
