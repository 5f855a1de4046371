// SPDX-License-Identifier: MIT
/// The table of a discrete schedule as a tensor, for losses whose tensors lie where it does.
///
///   torch_schedule const schedule(scaled_linear_schedule(), student.device());
///   torch_loss::distil(distillation<>{}, schedule, student, target, timesteps);
/// `levels` [T, 2], Double, contiguous: alpha_t and sigma_t of each timestep; kept, not copied.
/// Errors: levels of another shape or layout; on use, of another type or on another device than the
/// loss.
/// In .cpp units only: nvcc cannot read LibTorch's headers.
#pragma once

#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include <addloss/adapters/torch.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/schedule/concept.hpp>
#include <addloss/schedule/discrete.hpp>

namespace addloss {

class torch_schedule {
 public:
  explicit torch_schedule(discrete_schedule const& schedule, at::Device device = at::kCPU)
      : levels_(at::empty({schedule.size(), 2}, at::kDouble)) {
    auto* out = static_cast<double*>(levels_.data_ptr());
    for (std::int64_t t = 0; t < schedule.size(); ++t) {
      *out++ = schedule.at(t).alpha;
      *out++ = schedule.at(t).sigma;
    }
    levels_ = levels_.to(device);
  }
  explicit torch_schedule(at::Tensor levels) : levels_(std::move(levels)) {
    if (!levels_.defined())
      detail::fail("torch_schedule", "levels", "a tensor", "an undefined one");
    if (levels_.dim() != 2 || levels_.size(1) != 2 || !levels_.is_contiguous()) {
      detail::fail("torch_schedule", "levels", "contiguous numbers [T,2]",
                   detail::bracketed(levels_.sizes().data(), static_cast<int>(levels_.dim())));
    }
  }

  [[nodiscard]] at::Tensor const& levels() const { return levels_; }
  /// Valid as long as the tensor is.
  template <class Space = host_space>
  [[nodiscard]] schedule_table<Space> table() const {
    static_assert(sizeof(noise_level) == 2 * sizeof(double));
    auto const view = from_torch<double const, 2, Space>(levels_, "levels");
    return {reinterpret_cast<noise_level const*>(view.data), view.extents[0]};
  }

 private:
  at::Tensor levels_;
};

}  // namespace addloss
