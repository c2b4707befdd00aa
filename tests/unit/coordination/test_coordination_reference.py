"""The reference page is that of the schemas."""

from pathlib import Path

from cosim.coordination.catalogue import shipped
from cosim.coordination.reference import coordination_reference

PAGE = Path(__file__).parents[3] / "docs" / "coordination.md"


def test_the_page_is_up_to_date():
    message = "regenerate by: python -m cosim.coordination.reference > docs/coordination.md"
    assert PAGE.read_text(encoding="utf-8") == coordination_reference(), message


def test_every_scheme_and_every_part_is_described():
    page = coordination_reference()
    assert all(f"| `{name}` |" in page for name in shipped())
    for part in (
        "`transmission.lines.<number>`",
        "`areas.<name>.errors`",
        "`resources.<name>`",
        "`stages.<name>.repeat`",
    ):
        assert f"## {part}" in page
