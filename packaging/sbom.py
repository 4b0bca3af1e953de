"""The bundle's list of parts as CycloneDX JSON (a software bill of materials). No network."""

from __future__ import annotations

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from parts import Part


def cyclonedx(version: str, parts: list[Part]) -> str:
    """The document for kvdesk ``version``, made of ``parts``."""
    app = Component(
        name="kvdesk", version=version, type=ComponentType.APPLICATION, licenses=[DisjunctiveLicense(id="MIT")]
    )
    bom = Bom()
    bom.metadata.component = app
    components = [
        Component(
            name=part.name,
            version=part.version,
            type=ComponentType.LIBRARY,
            bom_ref=part.purl,
            purl=PackageURL.from_string(part.purl),
            licenses=[DisjunctiveLicense(name=part.licence)] if part.licence else [],
        )
        for part in parts
    ]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(app, components)
    return JsonV1Dot6(bom).output_as_string(indent=2)
