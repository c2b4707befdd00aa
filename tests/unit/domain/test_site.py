import numpy as np
import pytest

from cosim.domain.site import bus_of_site, site_name, site_sums, sites_of

POD_SITES = ("65.1", "LV1", "65.1", "65.1.2")


@pytest.mark.parametrize(
    ("phases", "site"), [((1, 2, 3), "65"), ((2,), "65.2"), ((3, 1), "65.1.3"), ((1, 3), "65.1.3")]
)
def test_a_site_is_a_bus_and_its_phases_unless_all(phases, site):
    assert site_name("65", phases) == site
    assert bus_of_site(site) == "65"


def test_sites_in_the_order_of_the_pods_and_their_sums():
    assert sites_of(POD_SITES) == ("65.1", "LV1", "65.1.2")
    assert (np.array([1.0, 2.0, 4.0, 8.0]) @ site_sums(POD_SITES) == [5.0, 2.0, 8.0]).all()
