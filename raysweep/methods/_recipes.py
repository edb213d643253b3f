"""Views that several papers share, for grey slices.

Colour operations have no meaning on intensities alone, so they are replaced. Brightness and contrast keep the paper's
strength; saturation, hue and conversion to grey give way to a gamma exponent whose strength is that of saturation (at
most 0.8), for it too changes relations between intensities without moving anything. Crops, flips, blur and
solarisation are the paper's; a blur kernel of a tenth of the view becomes a standard deviation in pixels.
"""

from __future__ import annotations

from raysweep.methods._settings import MethodSettings, View
from raysweep.settings import Augmentation

MOCO_V1 = Augmentation(crop_scale=(0.2, 1.0), jitter_p=1.0, brightness=0.4, contrast=0.4, gamma=0.4, blur_p=0.0)
"""Source: He et al. 2019, arXiv:1911.05722, section 3.3, after Wu et al. 2018."""

MOCO_V2 = Augmentation(crop_scale=(0.2, 1.0), jitter_p=0.8, brightness=0.4, contrast=0.4, gamma=0.4, blur_p=0.5)
"""Source: Chen et al. 2020, arXiv:2003.04297, section 3."""

SIMCLR = Augmentation(crop_scale=(0.08, 1.0), jitter_p=0.8, brightness=0.8, contrast=0.8, gamma=0.8, blur_p=0.5)
"""Source: Chen et al. 2020, arXiv:2002.05709, appendix A."""

BYOL_FIRST = Augmentation(crop_scale=(0.08, 1.0), jitter_p=0.8, brightness=0.4, contrast=0.4, gamma=0.2, blur_p=1.0)
"""Source: Grill et al. 2020, arXiv:2006.07733, table 6."""

BYOL_SECOND = BYOL_FIRST.model_copy(update={"blur_p": 0.1, "solarise_p": 0.2})
"""Source: Grill et al. 2020, arXiv:2006.07733, table 6."""

SMALL_CROP_SHARE = 96 / 224
"""Side of a small crop relative to a full view. Source: Caron et al. 2020, arXiv:2006.09882, section 3.3."""
_STRIDE = 32


def small_size(image_size: int) -> int:
    """Return the side of small crops: 96 pixels for 224, and a multiple of 32."""
    return max(_STRIDE, round(image_size * SMALL_CROP_SHARE / _STRIDE) * _STRIDE)


class TwoViewSettings(MethodSettings):
    """Settings of methods that take two views of one augmentation."""

    augmentation: Augmentation = MOCO_V2
    """Random transformations of both views."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return two views of equal augmentation."""
        view = View(augmentation=self.augmentation)
        return view, view


class ByolViewSettings(MethodSettings):
    """Settings of methods that take BYOL's two views."""

    first: View = View(augmentation=BYOL_FIRST)
    """The view that is always blurred."""
    second: View = View(augmentation=BYOL_SECOND)
    """The view that is seldom blurred and sometimes solarised."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the first and the second view."""
        return self.first, self.second
