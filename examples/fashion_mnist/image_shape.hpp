// SPDX-License-Identifier: MIT
/// The images and classes of Fashion-MNIST, in numbers.
#pragma once

namespace demo {

inline constexpr int image_side = 28;
inline constexpr int image_pixels = image_side * image_side;
inline constexpr int class_count = 10;
inline constexpr int no_class = class_count;  ///< the condition of an unconditional prediction

}  // namespace demo
