"""A finding in the forms that security tools read: pure functions, total over every `Finding`. Nothing is sent here.

What each form keeps and loses: `docs/siem.md`, made by `document.py`.
"""

from hydrophone.schemas.siem.alertmanager import to_alertmanager
from hydrophone.schemas.siem.cef import to_cef
from hydrophone.schemas.siem.ecs import to_ecs
from hydrophone.schemas.siem.leef import to_leef
from hydrophone.schemas.siem.ocsf import to_ocsf
from hydrophone.schemas.siem.splunk import to_hec
from hydrophone.schemas.siem.syslog import to_syslog

__all__ = ["to_alertmanager", "to_cef", "to_ecs", "to_hec", "to_leef", "to_ocsf", "to_syslog"]
